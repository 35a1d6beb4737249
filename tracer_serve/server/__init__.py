"""The BentoML service and its HTTP routes."""
