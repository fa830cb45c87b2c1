"""Judge a trained model again, from its folder, on any split or data set with its classes."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from ramstrans.console import Progress, no_progress
from ramstrans.data.audit.files import find_unreadable
from ramstrans.data.build import build_cache, build_image_set
from ramstrans.data.config import DataConfig
from ramstrans.data.loading.loader import ImageDataset, build_loader
from ramstrans.data.records import ImageSet, Record, Split
from ramstrans.devices import choose_device
from ramstrans.errors import DataError, OutputError, UsageError
from ramstrans.evaluation.early_exit import choose_exit
from ramstrans.evaluation.evaluate import evaluate
from ramstrans.evaluation.predict import predict_split
from ramstrans.evaluation.report.build import Report
from ramstrans.models.methods.early_exit import EarlyExit, check_confidence, check_num_scales
from ramstrans.models.methods.rams import RamsTrans, build_model
from ramstrans.saved.model import ModelMetadata, load_into, load_metadata, load_state, save_metadata


def evaluate_run(
    folder: Path,
    split: Split,
    output: Path,
    *,
    data_name: str | None = None,
    data_root: Path | None = None,
    batch_size: int = 32,
    device: str = "auto",
    precision: str | None = None,
    early_exit: float | Literal["auto"] | None = None,
    command: str = "",
    progress: Progress = no_progress,
) -> Report:
    """Judge the model of a folder; writes report.json, report.md and pictures.

    Args:
        folder: A run folder, or any model folder.
        split: Which images; drawn as in training where the data set brings no split.
        output: Where to write.
        data_name: Layout of the data; None: as in training.
        data_root: Folder or table of the data; None: as in training.
        batch_size: Images at once.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: `fp32`, `bf16` or `fp16`; None: as in training.
        early_exit: Confidence at which images need no further look, judged beside the rest; `auto`: chosen
            on the validation part, and kept in the model's folder.
        command: For the report.
        progress: Told (done, total, what).

    Raises:
        RamsTransError: The folder, the data or the options cannot be used; the message says why.
    """
    metadata = load_metadata(folder)
    run = metadata.training.get("run", {})
    data = data_config(run.get("data", {}), data_name, data_root)
    images = build_image_set(data, progress)
    precision = precision or run.get("training", {}).get("precision", "fp32")
    model = build_model(metadata.model)
    load_into(model, load_state(folder))
    model.to(choose_device(device)).eval()
    check_early_exit(model, images, early_exit)
    dataset, left_out = dataset_of(metadata, images, split, data, progress)
    make_folder(output)
    options: dict[str, Any] = {
        "precision": precision,
        "batch_size": batch_size,
        "read_timeout": data.read_timeout,
        "progress": progress,
    }
    extra = {"config": run, "command": command, "precision": precision, "warnings": left_out}
    confidence = None if early_exit == "auto" else early_exit
    if early_exit == "auto":
        held_out, _ = dataset_of(metadata, images, "val", data, progress)
        choice = choose_on(model, metadata, held_out, **options)
        save_metadata(folder, dataclasses.replace(metadata, early_exit=choice))
        confidence, extra["early_exit_choice"] = choice.confidence, dataclasses.asdict(choice)
    return evaluate(model, metadata, dataset, output, confidence=confidence, extra=extra, **options)


def check_early_exit(model: RamsTrans, images: ImageSet, early_exit: float | Literal["auto"] | None) -> None:
    """Raise if early exit cannot be judged, before anything is computed."""
    if early_exit is None:
        return
    check_num_scales(model.num_scales)
    if early_exit != "auto":
        check_confidence(early_exit, UsageError)
    elif not images.of_split("val"):
        raise UsageError(
            "--early_exit auto chooses on validation images, and none were held out; train with "
            "--data.val_fraction above 0, or give a confidence, e.g. --early_exit 0.9"
        )


def choose_on(
    model: RamsTrans,
    metadata: ModelMetadata,
    dataset: ImageDataset,
    *,
    precision: str,
    batch_size: int,
    read_timeout: float,
    progress: Progress,
) -> EarlyExit:
    """Choose the confidence of early exit on a split."""
    with_high_res = model.zoom_source == "full"
    loader = build_loader(
        dataset, batch_size, shuffle=False, with_high_res=with_high_res, timeout=read_timeout
    )
    device = next(model.parameters()).device
    predictions, _ = predict_split(
        model, loader, metadata.preprocessing, device, precision=precision, progress=progress
    )
    return choose_exit(predictions)


def dataset_of(
    metadata: ModelMetadata, images: ImageSet, split: Split, data: DataConfig, progress: Progress
) -> tuple[ImageDataset, list[str]]:
    """The centre views of a split, labelled as the model's classes, and a line on each file left out."""
    records, left_out = readable(with_labels_of(metadata, images, split), data, progress)
    dataset = ImageDataset(
        records,
        metadata.preprocessing,
        metadata.model.input_size,
        cache=build_cache(data, is_read_once=True),
        max_pixels=data.max_pixels,
        read_retries=data.read_retries,
    )
    return dataset, left_out


def make_folder(output: Path) -> None:
    """Make the folder of the report."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"--output {output} cannot be written: {error.strerror}; give another folder"
        ) from error


def data_config(trained_on: dict[str, object], name: str | None, root: Path | None) -> DataConfig:
    """The data of the training run, with another layout or place where given."""
    known = {field.name for field in dataclasses.fields(DataConfig)}
    values = {key: value for key, value in trained_on.items() if key in known}
    values |= {"name": name} if name else {}
    values |= {"root": root} if root else {}
    if "name" not in values:
        raise UsageError(
            "this model folder does not say what it was trained on; give --data.name and --data.root"
        )
    for key in ("resize", "crop"):
        values.pop(key, None)  # the preprocessing of the card counts
    for key in ("root", "cache_dir"):
        if values.get(key) is not None:
            values[key] = Path(str(values[key]))
    if not Path(str(values.get("cache_dir"))).is_dir():
        values.pop("cache_dir", None)  # of another machine: the default one does as well
    return DataConfig(**values)  # type: ignore[arg-type]


def with_labels_of(metadata: ModelMetadata, images: ImageSet, split: Split) -> tuple[Record, ...]:
    """The records of a split, labelled by the model's class list.

    Raises:
        DataError: The split is empty, or a class is not the model's.
    """
    records = images.of_split(split)
    if not records:
        raise DataError(f"the data set has no {split} images; take another --split")
    places = {name: index for index, name in enumerate(metadata.class_names)}
    unknown = sorted({images.class_names[record.label] for record in records} - set(places))
    if unknown:
        raise DataError(
            f"{len(unknown)} classes are not among the model's {len(places)}, e.g. '{unknown[0]}'; "
            "evaluate on the classes that it was trained on"
        )
    return tuple(record._replace(label=places[images.class_names[record.label]]) for record in records)


def readable(
    records: tuple[Record, ...], data: DataConfig, progress: Progress
) -> tuple[tuple[Record, ...], list[str]]:
    """The records whose files can be decoded, and a line on each other file, if they are to be skipped.

    If not, all records; the first unreadable file that is met stops the evaluation.

    Raises:
        DataError: No file can be decoded.
    """
    if data.on_unreadable == "stop":
        return records, []
    errors = find_unreadable(records, data.max_pixels, progress=progress)
    unreadable = {error.path for error in errors}
    kept = tuple(record for record in records if record.path not in unreadable)
    if not kept:
        raise DataError(f"none of the {len(records)} files can be read, e.g. {errors[0]}; repair them")
    return kept, [f"left out: {error}" for error in errors]
