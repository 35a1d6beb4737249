"""Surrogates: cheap models that imitate the teacher, one per file."""
