"""From a file, or a member of a tar, to pixels."""
