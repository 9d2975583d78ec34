"""Reviews as tokens or vectors: the vocabulary, the trained encoder, and BERT."""
