"""The long runs behind the tables of the book: `python -m prunebook --help`."""
