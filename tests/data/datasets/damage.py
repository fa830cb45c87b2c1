"""Damage to one file of a tiny data set, and the error that must name it."""

import shutil

import pytest

from ramstrans.errors import DataError
from tests.data.fakes.blocks import edit


def replaced(old, new):
    """Damage: `old` replaced by `new` in a text file."""
    return lambda file: edit(file, old, new)


def damage(file, change):
    """Remove a file or folder (None), overwrite it (text or bytes), or apply a function to it."""
    if callable(change):
        change(file)
    elif change is None:
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    else:
        file.write_bytes(change if isinstance(change, bytes) else change.encode())


def check_damage(read, root, file, change, message):
    """Assert that reading a damaged data set is a one-line error with this pattern that names its folder."""
    damage(root / file, change)
    with pytest.raises(DataError, match=message) as caught:
        read(root)
    assert "\n" not in str(caught.value)
    assert str(root) in str(caught.value)
