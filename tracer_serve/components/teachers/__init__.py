"""Teachers, the reference labellers: one client per file."""
