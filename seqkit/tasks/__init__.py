"""Tasks: each puts data, a model family, the training loop and the decoders together for one kind of problem."""
