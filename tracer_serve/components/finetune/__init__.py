"""A pretrained encoder fine-tuned on the traces: tokens, network, training, and the graph that serves it."""
