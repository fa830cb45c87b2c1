"""Saliency maps by name, one file each."""
