"""`ramstrans doctor`."""

from jsonargparse import Namespace

from ramstrans.commands.options import Parser
from ramstrans.console import results


def add_options(parser: Parser) -> None:
    """One option: what is to be described instead of this machine."""
    parser.add_argument(
        "--backbone",
        type=str | None,
        help="Name of a model of timm: describe it instead of this machine: sizes, pooling, saliencies.",
    )


def run(options: Namespace, _given: list[str]) -> int:
    """Report versions, devices and attention kernels, and what is missing; or describe a backbone."""
    console = results()
    if options.backbone is not None:
        from rich.table import Table
        from rich.text import Text

        from ramstrans.doctor import describe_backbone

        table = Table(box=None, pad_edge=False, show_header=False)
        for name, value in describe_backbone(options.backbone):
            table.add_row(Text(name), Text(value))
        console.print(table)
        return 0
    from ramstrans.doctor import diagnose, render

    checks = diagnose()
    console.print(render(checks))
    return 1 if any(check.status == "missing" for check in checks) else 0
