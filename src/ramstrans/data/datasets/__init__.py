"""Readers of data set formats, one file per format, and what several of them share."""
