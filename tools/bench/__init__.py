"""Measurements. Each file measures one thing, side by side with what it is held against, in one run."""
