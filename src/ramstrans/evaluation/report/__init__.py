"""The report on one split: numbers, text and figures."""
