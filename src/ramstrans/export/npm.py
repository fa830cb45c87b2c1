"""A package of npm, for browsers: fetched once by the machine's own npm, kept in the user's cache."""

import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from ramstrans.data.reading.cache import default_cache_dir
from ramstrans.errors import UsageError
from ramstrans.files import make_folder

RUNTIME = "onnxruntime-web@1.30.0"
"""The runtime of exported pages: a release and, below, what its files must be, to the last bit."""

RUNTIME_FILES = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""SHA-256 of each file."""

NPM_TIMEOUT = 600  # seconds


def runtime_files(folder: Path | None = None) -> list[Path]:
    """The files of `RUNTIME`, from a folder, the cache or npm.

    Args:
        folder: The unpacked package, or what contains or is its `dist`; None: the cache, which npm fills.

    Raises:
        UsageError: They are not there, are not those of the pinned release, or npm cannot get them.
    """
    if folder is None:
        folder = npm_package(RUNTIME)
    for place in (folder, folder / "dist", folder / "package" / "dist"):
        if (place / "ort.wasm.min.mjs").is_file():
            check_files(place, RUNTIME_FILES, RUNTIME)
            return [place / name for name in RUNTIME_FILES]
    raise UsageError(
        f"{folder} does not hold {RUNTIME}; give the folder that `npm pack {RUNTIME}` unpacks to, or leave "
        "--runtime out"
    )


def check_files(folder: Path, digests: Mapping[str, str], name: str) -> None:
    """Raise unless files are those of a release, to the last bit.

    Raises:
        UsageError: One is missing or another.
    """
    for file, digest in digests.items():
        path = folder / file
        if not path.is_file():
            raise UsageError(f"{path} is missing; give all of {name}, or leave --runtime out")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise UsageError(
                f"{path} is not that of {name}; get that release: `npm pack {name}`, or delete this folder "
                "if it is in the cache"
            )


def cached_package(name: str) -> Path:
    """Where the package `name@version` is in the user's cache, if it is.

    >>> cached_package("axe-core@4.14.1").parts[-3:]
    ('npm', 'axe-core@4.14.1', 'package')
    """
    return default_cache_dir().parent / "npm" / name / "package"


def npm_package(name: str) -> Path:
    """The folder of `name@version` in the cache; if it is not there, `npm pack` gets it.

    Raises:
        UsageError: npm is not installed, or fails.
        OutputError: The cache cannot be written.
    """
    cached = cached_package(name)
    if cached.is_dir():
        return cached
    npm = shutil.which("npm")
    if npm is None:
        raise UsageError(
            f"{name} is needed once, and npm, which gets it, is not installed; install Node.js, or give "
            f"--runtime FOLDER with what `npm pack {name}` gave on another machine, unpacked"
        )
    folder = cached.parent
    make_folder(folder.parent, hint="set XDG_CACHE_HOME to another folder")
    with TemporaryDirectory(dir=folder.parent) as draft:
        _pack(npm, name, Path(draft))
        if not folder.exists():  # another process may have been quicker
            Path(draft, "unpacked").rename(folder)
    return cached


def _pack(npm: str, name: str, draft: Path) -> None:
    """Let npm write the package into a folder, and unpack it there into `unpacked`."""
    command = [npm, "pack", name, "--pack-destination", str(draft), "--ignore-scripts"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=NPM_TIMEOUT)
        lines = [] if done.returncode == 0 else [*done.stderr.split("\n"), f"exit code {done.returncode}"]
    except subprocess.TimeoutExpired:
        lines = [f"no answer in {NPM_TIMEOUT} s"]
    archives = list(draft.glob("*.tgz"))
    if lines or len(archives) != 1:
        reason = next((line.strip() for line in lines if line.strip()), "no archive")
        raise UsageError(
            f"npm could not get {name} ({reason}); try again, or give --runtime FOLDER with what "
            f"`npm pack {name}` gave on another machine, unpacked"
        )
    with tarfile.open(archives[0]) as archive:
        archive.extractall(draft / "unpacked", filter="data")
