"""Fuzzing: random hostile input for everything that reads a file (`tools/fuzz.py`)."""
