"""What belongs together: photographs of one animal, site or day, which draws keep in one split."""

import logging
from pathlib import Path

from ramstrans.console import Progress, no_progress
from ramstrans.data.audit.files import decode_each
from ramstrans.data.config import DataConfig
from ramstrans.data.reading.exif import taken_at
from ramstrans.data.records import ImageSet
from ramstrans.errors import DataError

logger = logging.getLogger(__name__)


def with_groups(images: ImageSet, config: DataConfig, progress: Progress = no_progress) -> ImageSet:
    """Give each record the group that the config asks for; those of a table have theirs from its reader.

    Raises:
        DataError: Groups are asked for, and no image is in one.
    """
    if config.group_level is not None and config.name == "folder":
        where, names = f"data.group_level {config.group_level}", _folders(images, config)
        missing = "lie in no folder at that level below their class"
    elif config.group_day:
        where, missing = "data.group_day", "have no EXIF time"
        found = dict(decode_each(taken_at, images.records, progress=progress, timeout=config.read_timeout))
        times = (found[record.path] for record in images.records)
        names = ["" if time is None else f"{time:%Y-%m-%d}" for time in times]
    elif config.group_column is not None and config.name == "table":
        where, missing = f"data.group_column '{config.group_column}'", "have an empty cell there"
        names = [record.group for record in images.records]
    else:
        return images
    num_without = sum(not name for name in names)
    if names and num_without == len(names):
        raise DataError(f"{where}: all {len(names)} images {missing}; leave it out, or group otherwise")
    logger.info("%s: %d groups", where, len(set(names) - {""}))
    if num_without:
        logger.warning(
            "%s: %d of %d images %s; each of them is on its own", where, num_without, len(names), missing
        )
    records = (record._replace(group=name) for record, name in zip(images.records, names, strict=True))
    return images._replace(records=tuple(records))


def _folders(images: ImageSet, config: DataConfig) -> list[str]:
    """For each record its folders from the class down to `group_level`, or "" if it does not lie so deep.

    The folder of its split is not part of the name: the same animal in two splits is one group.
    """
    root, level = config.root or Path(), config.group_level or 1

    def name(path: Path, class_name: str) -> str:
        parts = path.relative_to(root).parts[:-1]
        below = parts[parts.index(class_name) :] if class_name in parts else ()
        return "/".join(below[: level + 1]) if len(below) > level else ""

    return [name(record.path, images.class_names[record.label]) for record in images.records]
