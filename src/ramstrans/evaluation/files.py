"""Files that are either whole or not there."""

import os
import uuid
from pathlib import Path

from ramstrans.errors import OutputError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name beside it, then rename: nobody ever sees half of it.

    Missing folders are made; an existing file is replaced.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_whole(Path(folder, "new", "note.txt"), b"wren")
    ...     Path(folder, "new", "note.txt").read_text()
    'wren'
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)  # noqa: PTH105 - the one call that is atomic on every system
    except OSError as error:
        _discard(temporary)
        reason = error.strerror or type(error).__name__
        raise OutputError(f"{path} cannot be written ({reason}); choose another folder") from error


def _discard(path: Path) -> None:
    """Remove a temporary file, if it got as far as existing."""
    if path.parent.is_dir():
        path.unlink(missing_ok=True)
