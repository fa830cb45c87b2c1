"""From a saved model to predictions: `Predictor`, its inputs, its output files, explanations."""
