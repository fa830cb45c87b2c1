"""Models for others: the model card, and what is pushed to the hub."""
