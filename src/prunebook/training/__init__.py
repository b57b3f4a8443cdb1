"""Device, data, networks, the training loop and its checkpoints."""
