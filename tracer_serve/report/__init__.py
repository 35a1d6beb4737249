"""A version's interpretability report."""
