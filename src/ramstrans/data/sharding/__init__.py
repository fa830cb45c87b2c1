"""Write, read and verify tar shards."""
