"""The true boxes of a data set, where a model is to look at them."""

from collections.abc import Sequence

from ramstrans.data.records import Record
from ramstrans.errors import DataError
from ramstrans.plain import counted


def check_boxes(records: Sequence[Record]) -> None:
    """Raise DataError unless every image has a box."""
    missing = [record for record in records if record.box is None]
    if missing:
        raise DataError(
            f"model.region_placement given looks at the true boxes; {len(missing)} of "
            f"{counted(len(records), 'image')} have none, e.g. {missing[0].path}: take a data set that has "
            "them, such as cub or toybirds"
        )
