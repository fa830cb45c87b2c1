"""From a trained model to answers: `Predictor`, what goes into it, what comes out, and why."""
