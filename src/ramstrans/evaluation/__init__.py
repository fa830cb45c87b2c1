"""Evaluation: predictions in, metrics, report and figures out."""
