"""Reference labellers, one client per file."""
