"""The generated fine-grained data set."""
