"""How far answers can be trusted: calibrated probabilities, "unknown", sets of classes; NumPy alone."""
