"""Files that are either whole or not there."""

import os
import uuid
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Write a file under a temporary name beside it, then rename: nobody ever sees half of it.

    Missing folders are made; an existing file is replaced.

    Raises:
        OSError: It cannot be written; nothing of it is left.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     replace_file(Path(folder, "new", "note.txt"), b"wren")
    ...     Path(folder, "new", "note.txt").read_text()
    'wren'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)  # noqa: PTH105 - the one call that is atomic on every system
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
