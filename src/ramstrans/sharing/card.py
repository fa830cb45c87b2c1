"""The model card: the README.md of a model's repository, whose YAML header the hub reads.

https://huggingface.co/docs/hub/model-cards describes the header.
"""

from collections.abc import Mapping
from typing import Any

from ramstrans.data.download.registry import REGISTRY
from ramstrans.evaluation.report import markdown, tables
from ramstrans.hub import Address, is_address
from ramstrans.plain import counted, utf8_text
from ramstrans.saved.metadata import ModelMetadata

MAX_CLASSES = 50
"""Most classes that a card lists; config.json has all."""

RECIPE = {
    "model": ("backbone", "method", "num_scales", "image_size", "region_size", "zoom_source", "weights"),
    "training": (
        *("epochs", "batch_size", "optimizer", "lr", "layer_decay", "weight_decay", "label_smoothing"),
        *("mixup", "cutmix", "ema_decay", "finetune", "precision"),
    ),
    "data": ("fit", "crop", "color_jitter", "rand_augment", "balance"),
}
"""The options that a card shows, where they are set."""

ABOUT = """\
This is a [ramstrans](https://arxiv.org/abs/2107.08192) model for {classes}. {how}"""

ZOOMS = (
    "Its first scale sees the whole photograph; what stands out in its saliency is cropped, enlarged and "
    "looked at again, {scales} in all, and the scales' probabilities are averaged."
)

USE = """\
```sh
pip install ramstrans
ramstrans predict {address} photographs --output predictions.csv
ramstrans explain {address} photograph.jpg
ramstrans train my_photographs --model.weights {address}   # start from it
```

```python
from ramstrans import Predictor

predictor = Predictor.load("{address}")
prediction = predictor("photograph.jpg")
prediction.labels[0], prediction.probabilities[0]
```"""


def model_card(
    metadata: ModelMetadata,
    report: Mapping[str, Any] | None,
    address: Address,
    *,
    picture: str | None = None,
    licence: str | None = None,
) -> str:
    """Write the card of a model, as Markdown with a YAML header.

    Args:
        metadata: Of the model.
        report: Its report on held-out images, as in report.json; None: the card has no figures.
        address: Where it is going to be.
        picture: A file beside the card; None: no picture.
        licence: Its identifier on the hub, e.g. `apache-2.0`.
    """
    from huggingface_hub import ModelCard

    num_scales = metadata.model.num_scales
    how = (
        ZOOMS.format(scales=counted(num_scales, "scale"))
        if num_scales > 1
        else "It sees the whole photograph."
    )
    classes = counted(len(metadata.class_names), "class")
    sections = [
        f"# {address.repository.partition('/')[2]}",
        ABOUT.format(classes=classes, how=how),
        *([] if picture is None else [f"![Figures of the model]({picture})"]),
        "## Use",
        USE.format(address=address),
        "## Figures",
        *_figures(report),
        "## Data",
        *_data(metadata),
        "## Recipe",
        *_recipe(metadata),
        "## Limits",
        _limits(metadata, report, licence),
    ]
    header = card_data(metadata, report, address, licence).to_yaml()
    text = utf8_text(f"---\n{header}\n---\n\n" + "\n\n".join(sections) + "\n")
    return str(ModelCard(text))  # which reads the header again


def card_data(
    metadata: ModelMetadata, report: Mapping[str, Any] | None, address: Address, licence: str | None
) -> Any:  # noqa: ANN401 - ModelCardData of a library that is imported late
    """The header of the card, which the hub checks, filters and shows."""
    from huggingface_hub import EvalResult, ModelCardData

    title, data_name, results = data_title(metadata), metadata.run_options("data").get("name", "own"), []
    if report is not None:
        kind, values = "accuracy", {}
        if "multi_label" in report:
            kind, values = "mAP", {"mean average precision": report["fused"]["map"]}
        else:
            values = {"top-1 accuracy": report["fused"]["top1"]}
            if len(report["classes"]) > 5:
                values["top-5 accuracy"] = report["fused"]["top5"]
        results = [
            EvalResult(
                task_type="image-classification",
                dataset_type=data_name,
                dataset_name=title,
                dataset_split=report["split"],
                metric_type=kind,
                metric_name=name,
                metric_value=round(value / 100, 4),
            )
            for name, value in values.items()
            if value is not None
        ]
    return ModelCardData(
        license=licence,
        library_name="ramstrans",
        pipeline_tag="image-classification",
        tags=["image-classification", "fine-grained", "vision", metadata.model.backbone.partition(".")[0]],
        base_model=base_model(metadata),
        metrics=["mAP" if metadata.model.multi_label else "accuracy"],
        model_name=address.repository.partition("/")[2] if results else None,
        eval_results=results or None,
    )


def base_model(metadata: ModelMetadata) -> str | None:
    """The repository of the weights that the run began with; None where they were a file, or random."""
    weights = str(metadata.run_options("model").get("weights"))
    if is_address(weights):
        return Address.parse(weights).repository
    if weights != "timm":
        return None
    import timm

    pretrained = timm.get_pretrained_cfg(metadata.model.backbone)
    identifier: str | None = getattr(pretrained, "hf_hub_id", None)
    return identifier


def data_title(metadata: ModelMetadata) -> str:
    """The name of a published data set, or of the folder or table of one's own."""
    data = metadata.run_options("data")
    titles = [source.title for source in REGISTRY.values() if source.data_name == data.get("name")]
    root = str(data.get("root") or "").replace("\\", "/").rstrip("/").rpartition("/")[2]
    return titles[0] if len(titles) == 1 else root or data.get("name") or "unknown"


def _figures(report: Mapping[str, Any] | None) -> list[str]:
    if report is None:
        return ["The model has no report: nothing is known of its accuracy."]
    words = f"In percent, on {markdown.images_of(report)}, which it was not trained on. "
    if "multi_label" in report:
        words += "The intervals (95 %, bootstrap) show how much depends on the choice of images."
        return [tables.table(*markdown.label_headline(report)), words]
    words += "The interval (95 %, Wilson) shows how much top-1 depends on the choice of images."
    if len(report["scales"]) > 1:
        words += (
            f" The later scales corrected {counted(report['zoom_gain']['corrected'], 'image')} and spoiled "
        )
        words += f"{report['zoom_gain']['spoiled']}."
    return [tables.table(*markdown.headline(report)), words]


def _data(metadata: ModelMetadata) -> list[str]:
    names = metadata.class_names
    listed = ", ".join(map(tables.cell, names[:MAX_CLASSES]))
    more = f", and {len(names) - MAX_CLASSES} more, in config.json" if len(names) > MAX_CLASSES else ""
    return [
        f"{tables.cell(data_title(metadata))}, {counted(len(names), 'class')}: {listed}{more}.",
        "The photographs are not part of this repository.",
    ]


def _recipe(metadata: ModelMetadata) -> list[str]:
    rows = []
    for section, names in RECIPE.items():
        options = metadata.run_options(section)
        shown = {name: options.get(name) for name in names}
        rows += [
            [f"{section}.{name}", str(value)]
            for name, value in shown.items()
            if value not in (None, 0.0, "none")
        ]
    if not rows:
        return [f"{metadata.model.backbone}; how it was trained is not recorded."]
    chosen = [f"epoch {metadata.training[key]}" for key in ("epoch",) if key in metadata.training]
    chosen += [f"chosen on: {metadata.training[key]}" for key in ("chosen_on",) if key in metadata.training]
    return [
        tables.table(("option", "value"), rows),
        f"{', '.join([*chosen, f'ramstrans {metadata.ramstrans_version}'])}. config.json has every option.",
    ]


def _limits(metadata: ModelMetadata, report: Mapping[str, Any] | None, licence: str | None) -> str:
    count = counted(len(metadata.class_names), "class")
    if report is not None and report.get("unknown"):
        other = "is answered with one of them too, and may or may not be called unknown"
    else:
        other = "gets one of them too, at times with a high probability"
    lines = [f"It knows these {count} alone: a photograph of anything else {other}."]
    if report is not None:
        lines.append(
            "The figures are for photographs like those it was tested on; other cameras, places, seasons or "
            "ways of choosing photographs may give others."
        )
        lines += _of_classes(report) if "multi_label" not in report else []
        lines += [f"{tables.cell(warning)}." for warning in report["warnings"]]
    terms = "see the terms of the data and of the first weights before you use it"
    lines.append(f"Licence: {licence or 'not given'}; {terms}.")
    return "\n".join(f"- {line}" for line in lines)


def _of_classes(report: Mapping[str, Any]) -> list[str]:
    """How well answers know how sure they are, calibrated if the model is, and the least accurate classes."""
    given = report.get("calibration")
    ece = report["fused"]["ece"] if given is None else given["fused"]["after"]["ece"]
    present = [entry for entry in report["classes"] if entry["num_images"]]
    hardest = sorted(present, key=lambda entry: entry["accuracy"])[:5]
    named = [f"{tables.cell(entry['name'])} {entry['accuracy']:.0f} %" for entry in hardest]
    return [
        f"Its probabilities are off by {ece:.1f} percentage points on average (expected calibration error).",
        f"Least accurate classes: {', '.join(named)}.",
    ]
