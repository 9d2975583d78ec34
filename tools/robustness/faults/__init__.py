"""Faults, injected into runs of this package: see tools/faults.py."""
