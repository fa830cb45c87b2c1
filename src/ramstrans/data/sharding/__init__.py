"""Tar shards: writing, reading and verifying them."""
