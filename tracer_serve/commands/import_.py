"""``tracer-serve import``: bring labelled traces into the store."""
