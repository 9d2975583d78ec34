"""A finished run that answers and learns: lists, ratings, explanations and updates."""
