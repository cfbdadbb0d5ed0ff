"""training: the network and its trainers."""
