"""Benchmarks: speed, memory and quality, beside what the device can do and what other implementations do."""
