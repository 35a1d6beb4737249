"""Built-in redactors: one file each."""
