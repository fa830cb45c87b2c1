"""Evaluate a model on a split: predictions, metrics, report, figures."""
