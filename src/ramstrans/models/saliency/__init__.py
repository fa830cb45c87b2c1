"""Saliency maps, one file per kind."""
