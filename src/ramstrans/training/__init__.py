"""From a config to a run folder: losses, optimiser, the training loop, checkpoints."""
