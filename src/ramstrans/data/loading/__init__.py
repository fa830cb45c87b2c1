"""From a list of records to batches."""
