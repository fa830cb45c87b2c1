"""Readers of data set formats, one file each, and what several of them share."""
