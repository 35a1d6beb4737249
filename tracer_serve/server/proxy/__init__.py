"""``tracer-serve proxy``: forward every LLM call unchanged, and find the classification tasks among them."""
