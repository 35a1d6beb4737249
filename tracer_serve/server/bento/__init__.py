"""BentoML: the service object, and a task packed as a bento."""
