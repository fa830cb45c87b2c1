"""Files of a report: either whole or not there."""

from pathlib import Path

from ramstrans.errors import OutputError
from ramstrans.files import replace_file


def write_whole(path: Path, content: bytes) -> None:
    """As `replace_file`; that it cannot be written is told to the user.

    Raises:
        OutputError: It cannot be written; nothing of it is left.
    """
    try:
        replace_file(path, content)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputError(f"{path} cannot be written ({reason}); choose another folder") from error
