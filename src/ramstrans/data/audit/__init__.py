"""Find what makes results misleading in the images and labels of a data set."""
