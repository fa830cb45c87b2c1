"""Download published data sets: registry, transfer, unpacking."""
