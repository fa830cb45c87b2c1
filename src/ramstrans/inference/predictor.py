"""`Predictor`: a trained model for files, folders of any size, and images in memory."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self, cast, overload

import torch

from ramstrans.calibration.fitted import Calibration, load_calibration, with_rank_confidence
from ramstrans.data.config import DataConfig
from ramstrans.data.image_priors import NO_CELLS, Cells, ImagePriors, check_priors, read_image_priors
from ramstrans.data.loading.dataset import Batch, Example, collate, to_example
from ramstrans.distributed import autocast
from ramstrans.errors import UsageError
from ramstrans.evaluation.predict import choose_precision
from ramstrans.evaluation.views import ScaleViews, scale_views
from ramstrans.inference.in_memory import ALLOWED, ImageInput, is_image, path_of
from ramstrans.inference.inputs import read_ahead, read_input
from ramstrans.inference.postprocess import Explanation, to_predictions
from ramstrans.inference.prediction import Prediction
from ramstrans.models.methods.base import Output
from ramstrans.models.methods.early_exit import (
    EarlyExitOutput,
    check_given,
    check_num_scales,
    check_one_label,
    exit_early,
)
from ramstrans.options import Precision
from ramstrans.saved.metadata import EarlyExit, metadata_to_json
from ramstrans.saved.model import SavedModel, load_model, weights_digest


class Predictor:
    """Predicts the class of images, which it prepares exactly as the evaluation does.

    Calls change nothing on an instance.

    Args:
        saved: The model and its metadata.
        precision: `fp32`, `bf16` or, on a GPU, `fp16`; None: as the model was trained, else `fp32`.
        early_exit: Confidence in (0, 1] at which an image skips the remaining scales, or `auto` for the one
            that was chosen for the model; None: every image passes all scales.
        calibration: What `ramstrans calibrate` fitted for the model; None: probabilities are as they are, and
            nothing is said of unknown images, sets and ranks.
        priors: Multiplied into calibrated probabilities; None: there are none.

    Raises:
        UsageError: The precision or early exit is not possible, or the model looks at true boxes.
    """

    def __init__(
        self,
        saved: SavedModel,
        precision: Precision | None = None,
        early_exit: float | Literal["auto"] | None = None,
        calibration: Calibration | None = None,
        priors: ImagePriors | None = None,
    ) -> None:
        self.model, self.metadata = saved
        self.calibration, self.priors = calibration, priors
        if self.model.needs_boxes:
            raise UsageError(
                "this model looks at the true boxes (model.region_placement given), which photographs do not "
                "come with; evaluate it on a data set that has boxes, or give --num_scales 1"
            )
        self.precision = choose_precision(precision, self.metadata, self.model.device)
        if early_exit is not None:
            check_one_label(self.metadata.model.multi_label)
        if early_exit == "auto":
            if self.metadata.early_exit is None:
                raise UsageError(
                    "early exit is 'auto', but no confidence was chosen for this model; choose one with "
                    "`ramstrans evaluate RUN --early_exit auto`, or give a number, e.g. 0.9"
                )
            check_calibrated(self.metadata.early_exit, calibration)
            early_exit = self.metadata.early_exit.confidence
        elif early_exit is not None:
            check_given(early_exit)
        if early_exit is not None:
            check_num_scales(self.model.num_scales)
        self.confidence: float | None = early_exit
        self.thresholds = self.metadata.thresholds if self.metadata.model.multi_label else None
        data = self.metadata.run_options("data")
        self.max_pixels = int(data.get("max_pixels", DataConfig.max_pixels))
        self.read_timeout = float(data.get("read_timeout", DataConfig.read_timeout))

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: str = "auto",
        precision: Precision | None = None,
        early_exit: float | Literal["auto"] | None = None,
        num_scales: int | None = None,
        *,
        rank_confidence: float | None = None,
        priors: Path | str | None = None,
        cells: Cells = NO_CELLS,
    ) -> Self:
        """Load a run folder, any saved model or `hf://user/name`, with its calibration if it has one.

        Args:
            folder: Of the model.
            device: As `load_model`.
            precision: As the class.
            early_exit: As the class.
            num_scales: Use its first scales alone.
            rank_confidence: Of answers at the ranks of the taxonomy, in (0.5, 1); None: that of `calibrate`.
            priors: File of priors, see `read_priors`.
            cells: By path, the columns of each photograph that the priors' conditions ask for.

        Raises:
            RamsTransError: As `load_model`, `load_calibration`, `read_image_priors` and the class.
            UsageError: There are priors, and the model is not calibrated or has several labels per image.
        """
        saved = load_model(folder, device, num_scales)
        calibration = load_calibration(
            folder, weights_digest(saved.model.state_dict()), saved.model.num_scales
        )
        found = None
        if priors is not None:
            check_priors(
                folder,
                is_calibrated=calibration is not None,
                multi_label=saved.metadata.model.multi_label,
            )
            found = read_image_priors(Path(priors), saved.metadata.class_names, cells)
        return cls(saved, precision, early_exit, with_rank_confidence(calibration, rank_confidence), found)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in label order."""
        return self.metadata.class_names

    def fingerprint(self) -> dict[str, Any]:
        """What predictions depend on, as plain values: digest of the model, precision, early exit, scales."""
        metadata = metadata_to_json(replace(self.metadata, early_exit=None))
        model = weights_digest(self.model.state_dict()) + metadata
        digest = hashlib.sha256(model.encode(errors="backslashreplace")).hexdigest()
        exits = {"early_exit": self.confidence, "num_scales": self.model.num_scales}
        fitted = None if self.calibration is None else self.calibration.to_json()
        calibration = fitted and hashlib.sha256(fitted.encode(errors="backslashreplace")).hexdigest()
        priors = {} if self.priors is None else {"priors": self.priors.fingerprint()}
        return {"model": digest, "precision": self.precision, "calibration": calibration} | exits | priors

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is a sequence of one-letter strings too
        self, images: ImageInput, top_k: int = ..., batch_size: int = ...
    ) -> Prediction: ...

    @overload
    def __call__(
        self, images: Sequence[ImageInput], top_k: int = ..., batch_size: int = ...
    ) -> list[Prediction]: ...

    def __call__(
        self, images: ImageInput | Sequence[ImageInput], top_k: int = 5, batch_size: int = 32
    ) -> Prediction | list[Prediction]:
        """Predict one image, or several, in order; see `stream`.

        Raises:
            UsageError: One is not an `ImageInput`.
        """
        if is_image(images):
            (prediction,) = self.stream([images], top_k, 1)
            return prediction
        return list(self.stream(cast(Sequence[ImageInput], images), top_k, batch_size))

    def stream(
        self, images: Iterable[ImageInput], top_k: int = 5, batch_size: int = 32
    ) -> Iterator[Prediction]:
        """Predict any number of images, in order and in bounded memory, while threads decode the next ones.

        An image that cannot be read gives a `Prediction` with an error.

        Args:
            images: Paths, images in memory, or whatever else an `ImageInput` is.
            top_k: Number of classes per prediction; fewer if the model has fewer.
            batch_size: Images per batch.

        Raises:
            UsageError: One is not an `ImageInput`; raised when it is reached.
            DataError: One took longer to read than the run's `data.read_timeout`.
        """
        if not isinstance(images, Iterable) or isinstance(images, Mapping):
            raise UsageError(f"images are of type {type(images).__name__}; give a list, or one: {ALLOWED}")
        for name, value in (("top_k", top_k), ("batch_size", batch_size)):
            if value < 1:
                raise UsageError(f"{name} is {value}; give 1 or more")
        return self._stream(images, top_k, batch_size)

    def explain(self, image: ImageInput, top_k: int = 5) -> Explanation:
        """Predict one image with all scales, and keep what the prediction is based on.

        Raises:
            UnreadableImageError: It cannot be decoded.
        """
        resized = read_input(image, self.metadata.preprocessing, self.max_pixels)
        batch, output, (views,) = scale_views(self.model, self.metadata, [resized], self.precision)
        return self.explained(batch, output, views, path_of(image), top_k)

    def explained(
        self, batch: Batch, output: Output, views: ScaleViews, path: Path | None, top_k: int
    ) -> Explanation:
        """What `scale_views` gave for one image, as its explanation."""
        (prediction,) = self.predictions(batch, output, [path], top_k)
        return Explanation(prediction, views)

    def read(self, image: ImageInput) -> Example:
        """Read one image as the model sees it; for `forward`.

        Raises:
            UnreadableImageError: It cannot be decoded.
            UsageError: It is not an `ImageInput`.
        """
        preprocessing = self.metadata.preprocessing
        resized = read_input(image, preprocessing, self.max_pixels)
        return to_example(resized, preprocessing, self.model.image_size)

    @torch.inference_mode()
    def forward(self, examples: Sequence[Example]) -> tuple[Batch, Output | EarlyExitOutput]:
        """Run the model on images that were read, as one batch, and with early exit if it is on.

        Raises:
            UsageError: The batch does not fit into the device's memory.
        """
        forward = partial(self.model, last_region=self.model.num_scales == 1)
        if self.confidence is not None:
            temperatures = None if self.calibration is None else self.calibration.temperatures
            forward = partial(exit_early, self.model, confidence=self.confidence, temperatures=temperatures)
        batch = collate(examples, with_high_res=self.model.needs_high_res)
        try:
            inputs = self.model.normalize(batch.images, batch.high_res)
            with autocast(self.model.device, self.precision):
                return batch, forward(*inputs)
        except torch.OutOfMemoryError as error:
            raise UsageError(
                f"a batch of {len(examples)} does not fit into the memory of {self.model.device}; "
                "give a smaller --batch_size"
            ) from error

    def _stream(self, images: Iterable[ImageInput], top_k: int, batch_size: int) -> Iterator[Prediction]:
        inputs = read_ahead(images, self.read, 2 * batch_size, self.read_timeout)
        while chunk := list(islice(inputs, batch_size)):
            readable = [(path, example) for path, example in chunk if isinstance(example, Example)]
            predictions = iter(self._predict(readable, top_k) if readable else [])
            for path, example in chunk:
                if isinstance(example, Example):
                    yield next(predictions)
                else:
                    yield Prediction(path, error=example, present=None if self.thresholds is None else ())

    def _predict(self, readable: list[tuple[Path | None, Example]], top_k: int) -> list[Prediction]:
        batch, output = self.forward([example for _, example in readable])
        return self.predictions(batch, output, [path for path, _ in readable], top_k)

    def predictions(
        self, batch: Batch, output: Output | EarlyExitOutput, paths: Sequence[Path | None], top_k: int = 5
    ) -> list[Prediction]:
        """What `forward` gave for a batch as predictions; `paths` are the files, None for one in memory."""
        return to_predictions(
            output,
            batch,
            paths,
            self.class_names,
            top_k,
            self.thresholds,
            self.calibration,
            self.priors,
            num_looks=self.model.num_looks,
        )


def check_calibrated(chosen: EarlyExit, calibration: Calibration | None) -> None:
    """Raise UsageError if a confidence was chosen for other probabilities than those there are now."""
    if chosen.is_calibrated != (calibration is not None):
        before = "calibrated" if chosen.is_calibrated else "uncalibrated"
        now = "not calibrated" if calibration is None else "calibrated now"
        raise UsageError(
            f"early exit is 'auto', but its confidence was chosen for {before} probabilities, and the model "
            f"is {now}; choose one again with `ramstrans evaluate RUN --early_exit auto`, or give a number"
        )
