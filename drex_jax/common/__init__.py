"""Modules that every package may import: errors, files, the cache, settings of one group, streams, progress."""
