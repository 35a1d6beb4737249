"""Python API: classify, fit and report without HTTP, and typed clients for a running server."""
