"""Authentication, limits, errors: what every route shares."""
