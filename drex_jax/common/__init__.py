"""What every room may use: errors, files, the cache, settings of one group, streams, progress."""
