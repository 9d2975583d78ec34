"""Raw files to validated columns, splits and model-ready arrays. Nothing here imports a model or JAX."""
