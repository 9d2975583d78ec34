"""From settings to a finished run directory: the loop, the optimizer, the search for settings."""
