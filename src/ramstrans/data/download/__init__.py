"""Published data sets: where they are, fetched, unpacked."""
