"""Explanations: keyword profiles, effects of past interactions, and how faithful they are."""
