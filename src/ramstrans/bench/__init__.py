"""What models cost side by side, and whether the loader of a data set keeps up with a model."""
