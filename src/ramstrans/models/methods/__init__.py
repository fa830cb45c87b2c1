"""Recognition methods over an encoder, one file each."""
