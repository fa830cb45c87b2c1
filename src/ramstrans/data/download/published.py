"""Download a published data set into a new folder: fetch its files, check them and unpack them."""

import logging
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from ramstrans.console import Progress, no_progress
from ramstrans.data.download.fetch import fetch
from ramstrans.data.download.registry import REGISTRY, PublishedFile
from ramstrans.data.download.unpack import SUFFIXES, unpack
from ramstrans.errors import DataError, OutputError
from ramstrans.files import check_new_folder, check_room, new_folder, not_writable

logger = logging.getLogger(__name__)


def download_data_set(
    name: str, root: Path, *, keep_archives: bool = False, progress: Progress = no_progress
) -> None:
    """Download a published data set and unpack it into a new folder, which appears once it is complete.

    The files are downloaded into `ROOT.archives` beside it, where the next call resumes an interrupted
    download. It is removed at the end.

    Args:
        name: A key of `REGISTRY`.
        root: Folder to create; may exist if it is empty.
        keep_archives: Whether `ROOT.archives` stays.
        progress: Reports bytes.

    Raises:
        DataError: There is no direct download (the message says how to get the set), or a file cannot be
            downloaded or unpacked.
        OutputError: The folder is not empty or cannot be written, or the disk has too little space.
    """
    source = REGISTRY[name]
    if not source.files:
        raise DataError(
            f"{source.title} cannot be downloaded directly: {source.instructions}; "
            f"then read it by --data.name {source.data_name} --data.root FOLDER"
        )
    root = root.resolve()
    check_new_folder(root)
    archives = root.with_name(f"{root.name}.archives")
    logger.info("%s: %.1f GB to download, see %s", source.title, source.num_bytes / 1e9, source.page)
    logger.info("terms: %s", source.terms)
    try:
        archives.mkdir(parents=True, exist_ok=True)
        with FileLock(archives / ".lock", timeout=0):
            # Images do not shrink in an archive: unpacked, they take at least as much again.
            present = sum(path.stat().st_size for path in archives.iterdir())
            check_room(root.parent, 2 * source.num_bytes - present, "archives and images")
            paths = [fetch(file, archives, progress) for file in source.files]
            with new_folder(root) as draft:
                for file, path in zip(source.files, paths, strict=True):
                    _unpack(file, path, draft, progress)
        if not keep_archives:
            shutil.rmtree(archives)
    except Timeout as error:
        raise OutputError(f"another download into {root} is running; wait for it, or give another") from error
    except OSError as error:
        raise not_writable(root, error) from error


def _unpack(file: PublishedFile, path: Path, root: Path, progress: Progress) -> None:
    """Unpack an archive, or copy another file."""
    folder = root / file.extract_to
    folder.mkdir(exist_ok=True)
    if file.name.lower().endswith(SUFFIXES):
        unpack(path, folder, progress)
    else:
        shutil.copyfile(path, folder / file.name)
