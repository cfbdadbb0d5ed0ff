"""training: the network and its trainers: the compiled one, the reference in torch, and what both learn from."""
