"""Texts to vectors, one embedder per file."""
