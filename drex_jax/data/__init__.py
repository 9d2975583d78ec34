"""Files to one table of interactions, its split, and the arrays that models read. Nothing here imports JAX."""
