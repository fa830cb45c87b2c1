"""Judging: predictions in, metrics, report and pictures out."""
