"""What would spoil a result, found in the photographs and their labels."""
