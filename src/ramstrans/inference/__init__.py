"""Images in, predictions out: see `Predictor`; `BatchPredictor` for tables of them, on clusters too."""

from ramstrans.inference.batches import BatchPredictor

__all__ = ["BatchPredictor"]
