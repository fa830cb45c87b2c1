"""Data sets: formats, reading and decoding, views, batches."""
