"""How fast, and with how much memory, this package works beside what it cannot beat and what others do."""
