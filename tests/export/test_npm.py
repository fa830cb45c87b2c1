"""The runtime of pages: from a folder, the cache or npm, to the last bit; or one line."""

import hashlib
import tarfile

import pytest

from ramstrans.errors import UsageError
from ramstrans.export import npm
from ramstrans.export.npm import RUNTIME, RUNTIME_FILES, cached_package, npm_package, runtime_files

NPM = """#!/bin/sh
[ "$1 $2 $3" = "pack dove@1.2.3 --pack-destination" ] || exit 7
echo "$2" >> "{root}/calls"
cp "{root}/dove.tgz" "$4"
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ramstrans" / "npm"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A folder with files that pass for the runtime's."""

    def fake(*parts):
        folder = (tmp_path / "runtime").joinpath(*parts)
        folder.mkdir(parents=True)
        for name in RUNTIME_FILES:
            (folder / name).write_text(name)
        digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in RUNTIME_FILES}
        monkeypatch.setattr(npm, "RUNTIME_FILES", digests)
        return folder

    return fake


def put_npm(folder, monkeypatch, text):
    """An npm of ours, alone on the path."""
    (folder / "bin").mkdir()
    (folder / "bin" / "npm").write_text(text)
    (folder / "bin" / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")


@pytest.mark.parametrize("parts", [(), ("dist",), ("package", "dist")])
def test_a_folder_of_the_package_will_do(fake, tmp_path, parts):
    folder = fake(*parts)
    assert runtime_files(tmp_path / "runtime") == [folder / name for name in RUNTIME_FILES]


def test_another_release_is_refused(fake, tmp_path):
    folder = fake()
    (folder / "ort.wasm.min.mjs").write_text("of another release")
    with pytest.raises(UsageError, match=rf"ort\.wasm\.min\.mjs is not that of {RUNTIME}; get that release"):
        runtime_files(folder)
    (folder / "ort-wasm-simd-threaded.wasm").unlink()
    (folder / "ort.wasm.min.mjs").write_text("ort.wasm.min.mjs")
    with pytest.raises(UsageError, match=r"threaded\.wasm is missing; give all of onnxruntime-web"):
        runtime_files(folder)
    with pytest.raises(UsageError, match=rf"does not hold {RUNTIME}; give the folder that `npm pack"):
        runtime_files(tmp_path)


def test_npm_is_asked_once(tmp_path, monkeypatch, cache):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "package.json").write_text("{}")
    with tarfile.open(tmp_path / "dove.tgz", "w:gz") as archive:
        archive.add(tmp_path / "package", "package")
    put_npm(tmp_path, monkeypatch, NPM.format(root=tmp_path))
    assert npm_package("dove@1.2.3") == npm_package("dove@1.2.3") == cached_package("dove@1.2.3")
    assert (cached_package("dove@1.2.3") / "package.json").read_text() == "{}"
    assert (tmp_path / "calls").read_text().split() == ["dove@1.2.3"]
    assert [path.name for path in cache.iterdir()] == ["dove@1.2.3"]


def test_npm_fails(tmp_path, monkeypatch, cache):
    put_npm(tmp_path, monkeypatch, "#!/bin/sh\necho 'npm error network is unreachable' >&2\nexit 1\n")
    with pytest.raises(
        UsageError, match=r"could not get dove@1 \(npm error network is unreachable\); try again"
    ):
        npm_package("dove@1")
    assert list(cache.iterdir()) == []


def test_no_npm(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UsageError, match=r"npm, which gets it, is not installed; install Node\.js, or give --runtime"
    ):
        runtime_files()
