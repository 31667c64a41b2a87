"""The small regular tasks of the hub. Each has a `run_once` that does one short step; `run.py` repeats them."""
