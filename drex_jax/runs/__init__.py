"""The run directory: file names, data set, checkpoints, locks and logs."""
