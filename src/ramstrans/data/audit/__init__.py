"""Find errors in the images and labels of a data set that make results misleading."""
