"""Archives of a few small files, and members of tar files as nobody should send them."""

import io
import tarfile
import zipfile

FILES = {"birds/wren/a b.jpg": b"wren" * 251, "birds/crow/1.jpg": b"", "birds/list.txt": b"1 wren\n"}


def header(name, kind=tarfile.REGTYPE, content=b"", target="", **changes):
    """A member of a tar file, and its content."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode = kind, len(content), target, 0o644
    for key, value in changes.items():
        setattr(info, key, value)
    return info, io.BytesIO(content)


def write_tar(path, *members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for info, content in members:
            tar.addfile(info, content)
    return path


def write(path, files=None):
    """An archive of a few files, of the kind that its name says."""
    files = FILES if files is None else files
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
            for name, content in files.items():
                bundle.writestr(name, content)
        return path
    members = [header(name, content=content) for name, content in files.items()]
    return write_tar(path, *members, mode="w" if path.suffix.lower() == ".tar" else "w:gz")
