"""How fast the recurrence runs on a stream, against what the device can do and what others do: tools/profile.py."""
