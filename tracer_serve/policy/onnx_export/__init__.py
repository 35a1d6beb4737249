"""Write a policy as one ONNX graph, from vectors to decisions, for runtimes other than this server."""
