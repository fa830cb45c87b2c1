"""What models cost side by side, and whether a data set's loader keeps up with a model."""
