"""The command line's commands, one file each: options, and what runs."""
