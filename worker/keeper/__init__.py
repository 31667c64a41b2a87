"""The keeper: a small process of its own that starts, watches, ends and reaps jobs. `main` is where it begins."""
