"""Data sets: formats, decoding, augmentation, batches."""
