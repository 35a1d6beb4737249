"""Scores of how safe an answer is, one acceptor per file."""
