"""What is served: stages, their views of a text, and their scores."""
