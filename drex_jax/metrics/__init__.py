"""Metrics of ratings and rankings, and paired tests."""
