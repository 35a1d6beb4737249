"""Authentication, limits and errors of all routes."""
