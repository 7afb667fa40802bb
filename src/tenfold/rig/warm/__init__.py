"""The warm_start cut for real: rows of embeddings and layers that start from what is known."""
