"""`ramstrans explain`."""

import json
from pathlib import Path

from jsonargparse import Namespace

from ramstrans.commands.options import Parser, add_device_options
from ramstrans.console import say


def add_options(parser: Parser) -> None:
    """Options of `explain`."""
    parser.add_argument("run", type=Path, help="Run folder, or any model folder.")
    parser.add_argument("image", type=Path, help="The photograph.")
    parser.add_argument(
        "--output", type=Path | None, help="Picture to write; default: IMAGE's name + -explained.png here."
    )
    add_device_options(parser)


def run(options: Namespace, _given: list[str]) -> int:
    """Show what a model looked at in one photograph: a picture, and JSON."""
    from ramstrans.inference.explain import explain as explain_photograph
    from ramstrans.inference.predictor import Predictor

    picture = options.output or Path(f"{options.image.stem}-explained.png")
    predictor = Predictor.load(options.run, options.device, options.precision or "fp32")
    explanation = explain_photograph(predictor, options.image, picture, picture.with_suffix(".json"))
    print(json.dumps(explanation))  # noqa: T201
    say(f"picture: {picture}, the same as JSON: {picture.with_suffix('.json')}")
    return 0
