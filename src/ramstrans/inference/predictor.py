"""A trained model that answers for photographs: files, folders of any length, images in memory."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, Self, overload

import numpy as np
import torch
from PIL import Image, ImageOps

from ramstrans.data.config import DataConfig
from ramstrans.data.loading.dataset import Batch, Example, collate
from ramstrans.data.loading.transforms import make_view
from ramstrans.data.reading.decode import (
    check_shape,
    decode_image,
    read_resized,
    resize_in_memory,
    to_rgb,
)
from ramstrans.data.records import Box
from ramstrans.devices import choose_device
from ramstrans.errors import UnreadableImageError, UsageError
from ramstrans.evaluation.predict import autocast, normalized
from ramstrans.evaluation.report.crops import crop_picture, picture_of
from ramstrans.inference.answers import Answers
from ramstrans.models.methods.early_exit import (
    EarlyExitOutput,
    check_confidence,
    check_num_scales,
    exit_early,
)
from ramstrans.models.methods.rams import RamsOutput, RamsTrans, build_model
from ramstrans.saved.model import ModelMetadata, load_into, load_metadata, load_state

Picture = Image.Image | Path | str
Precision = Literal["fp32", "bf16"]

NUM_THREADS = min(8, os.cpu_count() or 1)
"""That decode photographs while the model computes."""


class ScalePrediction(NamedTuple):
    """What one scale said.

    Attributes:
        labels: Names of its most probable classes, best first.
        probabilities: Theirs.
        box: The region it proposed for the next scale, half-open `(x0, y0, x1, y1)` in pixels of the
            photograph after EXIF rotation. None for the last of several scales, at whose region no scale
            looks; explanations have it.
        has_region: False where nothing stood out and the box is all that this scale saw; None where
            the box is None.
    """

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    box: Box | None
    has_region: bool | None


class Prediction(NamedTuple):
    """What a model said about one photograph.

    Attributes:
        path: The file; None for an image in memory.
        labels: Names of the most probable classes by the mean of the scales' probabilities, best
            first; empty where there is an error.
        probabilities: Theirs.
        scales: What each scale said, first scale first; fewer than the model has where the photograph
            left early.
        error: Why the photograph could not be read, or None.
    """

    path: Path | None
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    scales: tuple[ScalePrediction, ...]
    error: str | None = None


class Explanation(NamedTuple):
    """Why a model said what it said about one photograph; S scales.

    Attributes:
        photograph: Upright RGB.
        prediction: The answer.
        saliencies: S arrays (h, w) float32, non-negative, of the patches of what each scale saw.
        frames: S boxes in pixels of the photograph: what each scale saw, over which its saliency is
            stretched. The first is the preprocessing's crop, every other the scale before's region.
        crops: S images: what each scale saw, as it saw it.
    """

    photograph: Image.Image
    prediction: Prediction
    saliencies: tuple[np.ndarray, ...]
    crop_boxes: tuple[Box, ...]
    crops: tuple[Image.Image, ...]


class Predictor:
    """Answers for photographs, prepared exactly as the evaluation prepares them.

    So a large JPEG file is decoded at a reduced scale. One in memory has all of its pixels already, and is
    resized from them: its answers may differ from the file's by what `REDUCTION_MARGIN` tells.

    One thread at a time may call an instance.

    Args:
        model: With its trained weights.
        metadata: Of the model.
        device: Where to compute; the model is moved there and put into eval mode.
        precision: `fp32`, or `bf16` for faster, slightly coarser matrix products.
        early_exit: Confidence in (0, 1] at which a photograph needs no further look, or `auto` for the one
            that the card holds; None: every photograph takes all looks.
    """

    def __init__(
        self,
        model: RamsTrans,
        metadata: ModelMetadata,
        device: torch.device,
        precision: Precision = "fp32",
        early_exit: float | Literal["auto"] | None = None,
    ) -> None:
        if precision not in ("fp32", "bf16"):
            raise UsageError(f"precision is '{precision}'; give fp32 or bf16")
        if early_exit == "auto":
            if metadata.early_exit is None:
                raise UsageError(
                    "early exit is 'auto', but no confidence was chosen for this model; choose one with "
                    "`ramstrans evaluate RUN --early_exit auto`, or give a number, e.g. 0.9"
                )
            early_exit = metadata.early_exit.confidence
        if early_exit is not None:
            check_confidence(early_exit, UsageError)
            check_num_scales(model.num_scales)
        self.confidence: float | None = early_exit
        self.model = model.to(device).eval()
        self.metadata = metadata
        self.device = device
        self.precision = precision

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: str = "auto",
        precision: Precision = "fp32",
        early_exit: float | Literal["auto"] | None = None,
    ) -> Self:
        """Load the model of a run folder; needs nothing but the folder's two files.

        Raises:
            WeightsError: The folder or its weights are missing, damaged or do not fit.
            ConfigError: Its config is damaged or of a newer version.
            UsageError: The device is not there, or early exit is `auto` and nobody has chosen.
        """
        place = choose_device(device)
        metadata = load_metadata(Path(folder))
        state = load_state(Path(folder))
        model = build_model(replace(metadata.model, weights=None, num_classes=len(metadata.class_names)))
        load_into(model, state)
        return cls(model, metadata, place, precision, early_exit)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in label order."""
        return self.metadata.class_names

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is a sequence too, of one-letter ones
        self, images: Picture, top_k: int = ..., batch_size: int = ...
    ) -> Prediction: ...

    @overload
    def __call__(
        self, images: Sequence[Picture], top_k: int = ..., batch_size: int = ...
    ) -> list[Prediction]: ...

    def __call__(
        self, images: Picture | Sequence[Picture], top_k: int = 5, batch_size: int = 32
    ) -> Prediction | list[Prediction]:
        """Predict one photograph, or several, in order; see `stream`."""
        if isinstance(images, Image.Image | Path | str):
            (prediction,) = self.stream([images], top_k, 1)
            return prediction
        return list(self.stream(images, top_k, batch_size))

    def stream(self, images: Iterable[Picture], top_k: int = 5, batch_size: int = 32) -> Iterator[Prediction]:
        """Predict any number of photographs in bounded memory, decoding ahead in threads.

        One that cannot be read gives a `Prediction` with its error.

        Args:
            images: Paths, or images in memory.
            top_k: Number of classes named in each prediction; fewer where the model knows fewer.
            batch_size: Number of photographs that the model sees at once.

        Returns:
            An iterator over predictions, in the order of `images`.
        """
        for name, value in (("top_k", top_k), ("batch_size", batch_size)):
            if value < 1:
                raise UsageError(f"{name} is {value}; give 1 or more")
        return self._stream(images, top_k, batch_size)

    def explain(self, image: Picture, top_k: int = 5) -> Explanation:
        """Predict one photograph, all looks, and keep what the prediction rests on.

        Raises:
            UnreadableImageError: It cannot be decoded.
        """
        photograph = self._photograph(image)
        example = self._example(image)
        batch = self._batch([example])
        output = self._look(batch, last_region=True)
        path = Path(image) if isinstance(image, Path | str) else None
        (prediction,) = self._predictions(batch, Answers.of(output, batch), [path], top_k)
        height, width = self.model.image_size
        everything = example.view.geometry.to_original(np.array([0.0, 0.0, width, height]))
        seen = _box(everything, photograph.width, photograph.height)
        saliencies = [scale.saliency for scale in output.scales]
        return Explanation(
            photograph,
            prediction,
            tuple(saliency[0].float().cpu().numpy() for saliency in saliencies if saliency is not None),
            (seen, *(scale.box for scale in prediction.scales[:-1] if scale.box is not None)),
            self._crops(batch, output),
        )

    def _stream(self, images: Iterable[Picture], top_k: int, batch_size: int) -> Iterator[Prediction]:
        prepared = self._prepared(images, 2 * batch_size)
        while batch := list(islice(prepared, batch_size)):
            examples = [example for _, example in batch if isinstance(example, Example)]
            paths = [path for path, example in batch if isinstance(example, Example)]
            answers = iter(self._answer(examples, paths, top_k) if examples else [])
            for path, example in batch:
                yield next(answers) if isinstance(example, Example) else Prediction(path, (), (), (), example)

    def _prepared(
        self, images: Iterable[Picture], num_ahead: int
    ) -> Iterator[tuple[Path | None, Example | str]]:
        """Path, and example or error, of each image in order; at most `num_ahead` wait in memory."""
        waiting: deque[Future[tuple[Path | None, Example | str]]] = deque()
        with ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="decode") as pool:
            try:
                for image in images:
                    waiting.append(pool.submit(self._prepare, image))
                    if len(waiting) >= num_ahead:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _prepare(self, image: Picture) -> tuple[Path | None, Example | str]:
        path = None if isinstance(image, Image.Image) else Path(image)
        try:
            return path, self._example(image)
        except UnreadableImageError as error:
            return path, error.reason

    def _photograph(self, image: Picture) -> Image.Image:
        """Upright RGB, with all of its pixels."""
        name = "image in memory" if isinstance(image, Image.Image) else str(image)
        if isinstance(image, Image.Image):
            try:
                check_shape(name, image.size, DataConfig.max_pixels)
                photograph = to_rgb(ImageOps.exif_transpose(image))
            except UnreadableImageError:
                raise
            except (OSError, SyntaxError, ValueError) as error:  # one that was opened but not yet read
                raise UnreadableImageError(name, f"damaged image ({error})") from error
        else:
            photograph = decode_image(Path(image))
        return photograph

    def _example(self, image: Picture) -> Example:
        """The very view of a file that `ImageDataset` gives without augmentation."""
        preprocessing = self.metadata.preprocessing
        if isinstance(image, Image.Image):
            photograph = resize_in_memory(self._photograph(image), preprocessing.resize)
        else:
            photograph = read_resized(Path(image), preprocessing.resize)
        view = make_view(*photograph, preprocessing.crop, self.model.image_size)
        return Example(view, -1, -1, photograph.original_size)  # of no class and no data set

    def _answer(
        self, examples: Sequence[Example], paths: Sequence[Path | None], top_k: int
    ) -> list[Prediction]:
        batch = self._batch(examples)
        if self.confidence is None:
            answers = Answers.of(self._look(batch, last_region=self.model.num_scales == 1), batch)
        else:
            answers = Answers.of_early_exit(self._predict_early_exit(batch, self.confidence), batch)
        return self._predictions(batch, answers, paths, top_k)

    def _batch(self, examples: Sequence[Example]) -> Batch:
        with_high_res = self.model.zoom_source == "full" and self.model.num_scales > 1
        return collate(examples, with_high_res=with_high_res)

    @torch.inference_mode()
    def _look(self, batch: Batch, *, last_region: bool) -> RamsOutput:
        with self._computing(batch):
            images, high_res = normalized(batch, self.metadata.preprocessing, self.device)
            output: RamsOutput = self.model(images, high_res, last_region=last_region)
            return output

    @torch.inference_mode()
    def _predict_early_exit(self, batch: Batch, confidence: float) -> EarlyExitOutput:
        with self._computing(batch):
            images, high_res = normalized(batch, self.metadata.preprocessing, self.device)
            return exit_early(self.model, images, high_res, confidence=confidence)

    @contextmanager
    def _computing(self, batch: Batch) -> Iterator[None]:
        """Autocast; a batch that is too large is told."""
        try:
            with autocast(self.device, self.precision):
                yield
        except torch.OutOfMemoryError as error:
            raise UsageError(
                f"a batch of {len(batch.images)} does not fit into the memory of {self.device}; "
                "give a smaller --batch_size"
            ) from error

    def _predictions(
        self, batch: Batch, answers: Answers, paths: Sequence[Path | None], top_k: int
    ) -> list[Prediction]:
        predictions = []
        for index, (path, (width, height)) in enumerate(
            zip(paths, batch.original_sizes.tolist(), strict=True)
        ):
            scales = []
            for scale in range(answers.num_scales_used[index]):
                box, has_region = None, None
                if scale < len(answers.boxes):
                    box = _box(answers.boxes[scale, index], width, height)
                    has_region = bool(answers.has_region[scale, index])
                best = self._best(answers.probabilities[scale, index], top_k)
                scales.append(ScalePrediction(*best, box, has_region))
            fused = self._best(answers.fused[index], top_k)
            predictions.append(Prediction(path, *fused, tuple(scales)))
        return predictions

    def _best(self, probabilities: np.ndarray, top_k: int) -> tuple[tuple[str, ...], tuple[float, ...]]:
        """Names and probabilities of the most probable classes; of equal ones the first first."""
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        return tuple(self.class_names[label] for label in best), tuple(map(float, probabilities[best]))

    def _crops(self, batch: Batch, output: RamsOutput) -> tuple[Image.Image, ...]:
        """What each scale saw of the batch's first photograph, as 8-bit images."""
        crops = [picture_of(batch.images[0])]
        for scale, size in zip(output.scales, self.model.scale_sizes[1:], strict=False):
            assert scale.boxes is not None, "a model in eval mode proposes a region at every scale"
            crops.append(crop_picture(batch, scale.boxes, size))
        return tuple(crops)


def _box(box: np.ndarray, width: float, height: float) -> Box:
    """A box as floats, kept inside a photograph that it leaves by a rounding error at most."""
    x0, y0, x1, y1 = np.clip(box, 0, (width, height, width, height)).tolist()
    return x0, y0, x1, y1
