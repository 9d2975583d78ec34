"""Benchmarks of speed, memory and quality, compared with the device's peaks and with other implementations."""
