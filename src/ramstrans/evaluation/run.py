"""Judge a trained model again, from its folder, on any split or data set with its classes."""

import dataclasses
from pathlib import Path

from ramstrans.data.build import Progress, build_image_set
from ramstrans.data.check import find_unreadable
from ramstrans.data.config import DataConfig
from ramstrans.data.loading import PhotographDataset
from ramstrans.data.records import ImageSet, Record, Split
from ramstrans.devices import choose_device
from ramstrans.errors import DataError, OutputError, UsageError
from ramstrans.evaluation.judge import judge
from ramstrans.evaluation.report import Report
from ramstrans.model.folder import ModelCard, load_card, load_into, load_state
from ramstrans.model.rams import build_model


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
    command: str = "",
    progress: Progress = lambda *_: None,
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
        command: For the report.
        progress: Told (done, total, what).

    Raises:
        RamsTransError: The folder, the data or the options cannot be used; the message says why.
    """
    card = load_card(folder)
    run = card.training.get("run", {})
    data = data_config(run.get("data", {}), data_name, data_root)
    images = build_image_set(data, progress)
    records, left_out = readable(with_labels_of(card, images, split), data, progress)
    precision = precision or run.get("training", {}).get("precision", "fp32")
    model = build_model(card.model)
    load_into(model, load_state(folder))
    model.to(choose_device(device)).eval()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"--output {output} cannot be written: {error.strerror}; give another folder"
        ) from error
    dataset = PhotographDataset(
        records, card.preprocessing, card.model.input_size, max_pixels=data.max_pixels
    )
    extra = {"config": run, "command": command, "precision": precision, "warnings": left_out}
    return judge(
        model,
        card,
        dataset,
        output,
        precision=precision,
        batch_size=batch_size,
        extra=extra,
        progress=progress,
    )


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
    if values.get("root") is not None:
        values["root"] = Path(str(values["root"]))
    return DataConfig(**values)  # type: ignore[arg-type]


def with_labels_of(card: ModelCard, images: ImageSet, split: Split) -> tuple[Record, ...]:
    """The records of a split, labelled by the model's class list.

    Raises:
        DataError: The split is empty, or a class is not the model's.
    """
    records = images.of_split(split)
    if not records:
        raise DataError(f"the data set has no {split} images; take another --split")
    places = {name: index for index, name in enumerate(card.class_names)}
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
    errors = find_unreadable(
        records, data.max_pixels, progress=lambda done, total: progress(done, total, "checking files")
    )
    unreadable = {error.path for error in errors}
    kept = tuple(record for record in records if record.path not in unreadable)
    if not kept:
        raise DataError(f"none of the {len(records)} files can be read, e.g. {errors[0]}; repair them")
    return kept, [f"left out: {error}" for error in errors]
