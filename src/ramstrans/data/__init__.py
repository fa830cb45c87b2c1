"""Photographs in: one file a layout, decoding, views, batches."""
