"""Annotations in MATLAB files, read by SciPy."""

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramstrans.data.reading.retry import open_retrying
from ramstrans.errors import DataError

_UNREADABLE = (OSError, ValueError, TypeError, LookupError, NotImplementedError, zlib.error)
"""Exceptions of SciPy for damaged files, besides its own error."""


def read_mat(file: Path, variables: tuple[str, ...]) -> list[NDArray[np.generic]]:
    """Variables of a MATLAB file, each flat (N,), its cells and fields without their outer dimensions.

    Args:
        file: A `.mat` file of version 7 or older.
        variables: Names of the variables.

    Raises:
        DataError: The file or a variable is missing, or it cannot be read.
    """
    from scipy.io import loadmat  # slow to import, and needed by three formats only
    from scipy.io.matlab import MatReadError

    if not file.is_file():
        raise DataError(f"{file} is missing; unpack the whole set, or choose another --data.name")
    try:
        with open_retrying(file) as stream:
            content = loadmat(stream, squeeze_me=True)  # type: ignore[arg-type] # it documents streams too
    except (*_UNREADABLE, MatReadError) as error:
        raise DataError(f"{file} cannot be read as a MATLAB file: {error}") from error
    missing = [name for name in variables if name not in content]
    if missing:
        raise DataError(f"{file} has no '{missing[0]}'; take the published file")
    return [np.atleast_1d(content[name]) for name in variables]


def whole_numbers(values: NDArray[np.generic], file: Path, name: str) -> list[int]:
    """A variable's values as integers.

    Raises:
        DataError: They are not whole numbers; names the file and the variable.

    >>> whole_numbers(np.array([3.0, 7.0]), Path("labels.mat"), "labels")
    [3, 7]
    """
    if (
        values.ndim != 1
        or values.dtype.kind not in "iuf"
        or not all(map(float.is_integer, values.astype(float)))
    ):
        raise DataError(f"{file}: '{name}' is not a list of whole numbers")
    return [int(value) for value in values.tolist()]
