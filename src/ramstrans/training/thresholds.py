"""From which probability each label counts as present, where images may have several."""

import dataclasses

from ramstrans.data.loading.loader import ImageLoader
from ramstrans.evaluation.multi_label import best_thresholds, threshold_warnings
from ramstrans.evaluation.predict import predict_split
from ramstrans.models.methods.method import Method
from ramstrans.saved.metadata import ModelMetadata


def with_thresholds(
    metadata: ModelMetadata, model: Method, loader: ImageLoader, precision: str
) -> ModelMetadata:
    """The metadata with each label's threshold, which has the highest F1 on the validation images.

    Args:
        metadata: Of the model.
        model: With the chosen weights.
        loader: Of the validation images; several processes share them.
        precision: Of autocast.
    """
    predictions = predict_split(model, loader, precision=precision)
    truth = predictions.labels > 0
    warnings = (*metadata.training.get("warnings", ()), *threshold_warnings(truth))
    return dataclasses.replace(
        metadata,
        label_thresholds=tuple(map(float, best_thresholds(predictions.fused, truth))),
        training=metadata.training | {"warnings": warnings},
    )
