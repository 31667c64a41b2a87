"""The handlers, a file for each family; `table.py` lists them all."""
