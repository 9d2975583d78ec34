"""The machinery of settings, and the groups that all models share."""
