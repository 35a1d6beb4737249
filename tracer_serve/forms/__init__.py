"""Forms: everything of an LLM call but its text, with a fingerprint, a slot and a description."""
