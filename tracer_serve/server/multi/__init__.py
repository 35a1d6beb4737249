"""Several tasks in one server."""
