"""A trained model in a folder: everything that inference needs."""
