"""What a step is made of: losses, mixing, which weights are trained, optimiser, average."""
