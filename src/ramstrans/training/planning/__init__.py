"""What fits, and how long it takes: measured before a run begins."""
