"""Fault injection into runs of this package (`tools/faults.py`)."""
