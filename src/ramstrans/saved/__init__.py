"""Saved models: a folder with everything that inference needs."""
