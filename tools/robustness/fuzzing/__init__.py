"""Hostile input, made at random, and what must hold of everything that reads it (`tools/fuzz.py`)."""
