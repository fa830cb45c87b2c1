"""From a config to a run folder: losses, optimiser, the one loop."""
