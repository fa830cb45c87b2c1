"""`ramstrans doctor`."""

from jsonargparse import Namespace

from ramstrans.commands.options import Parser
from ramstrans.console import results


def add_options(_parser: Parser) -> None:
    """`doctor` has none."""


def run(_options: Namespace, _given: list[str]) -> int:
    """Report versions, devices and attention kernels, and what is missing."""
    from ramstrans.doctor import diagnose, render

    console = results()
    checks = diagnose()
    console.print(render(checks))
    return 1 if any(check.status == "missing" for check in checks) else 0
