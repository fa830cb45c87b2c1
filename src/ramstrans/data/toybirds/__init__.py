"""toybirds, the generated fine-grained data set."""
