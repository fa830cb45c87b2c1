"""Annotations in MATLAB files, which SciPy reads."""

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramstrans.data.reading.retry import open_retrying
from ramstrans.errors import DataError

_UNREADABLE = (OSError, ValueError, TypeError, LookupError, NotImplementedError, zlib.error)
"""What SciPy raises at damaged files, beside its own error."""


def read_mat(file: Path, variables: tuple[str, ...], layout: str) -> list[NDArray[np.generic]]:
    """Variables of a MATLAB file, each flat, (N,); its cells and fields without their outer dimensions.

    Args:
        file: A `.mat` file of version 7 or older.
        variables: Their names.
        layout: Name of the data set, for messages.

    Raises:
        DataError: SciPy is not installed, or the file or a variable is missing, or it cannot be read.
    """
    try:
        from scipy.io import loadmat  # of three layouts alone
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise DataError(f"{file.name} of {layout} needs SciPy to be read; pip install scipy") from error
    if not file.is_file():
        raise DataError(f"{file} is missing; the layout of {layout} needs it")
    try:
        with open_retrying(file) as stream:
            content = loadmat(stream, squeeze_me=True)  # type: ignore[arg-type] # it documents streams too
    except (*_UNREADABLE, MatReadError) as error:
        raise DataError(f"{file} cannot be read as a MATLAB file: {error}") from error
    missing = [name for name in variables if name not in content]
    if missing:
        raise DataError(f"{file} holds no '{missing[0]}'; the layout of {layout} needs it")
    return [np.atleast_1d(content[name]) for name in variables]


def whole_numbers(values: NDArray[np.generic], file: Path, name: str) -> list[int]:
    """A variable's values as integers.

    Raises:
        DataError: They are something else than whole numbers; names the file and the variable.

    >>> whole_numbers(np.array([3.0, 7.0]), Path("labels.mat"), "labels")
    [3, 7]
    """
    if (
        values.ndim != 1
        or values.dtype.kind not in "iuf"
        or not all(map(float.is_integer, values.astype(float)))
    ):
        raise DataError(f"{file}: '{name}' holds something else than a list of whole numbers")
    return [int(value) for value in values.tolist()]
