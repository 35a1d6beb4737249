"""Embedders: texts to vectors, one embedder per file."""
