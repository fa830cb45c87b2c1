import io
from pathlib import Path
from unittest import mock

import pytest
from PIL import Image

from ramstrans.data import build
from ramstrans.data.audit import files as module
from ramstrans.data.audit.files import find_unreadable
from ramstrans.data.config import DataConfig
from ramstrans.data.records import ImageSet, Record
from ramstrans.errors import DataError, UnreadableImageError


def apply_unreadable(images, errors, on_unreadable):
    """The data set that remains when these files were found to be unreadable."""
    with mock.patch.object(build, "find_unreadable", return_value=errors):
        return build.drop_unreadable(images, DataConfig(on_unreadable=on_unreadable))[0]


@pytest.fixture
def images(tmp_path):
    """Thirteen images of two classes, of which 3 is empty and 5 is cut short."""
    stream = io.BytesIO()
    Image.radial_gradient("L").save(stream, "JPEG")
    content = stream.getvalue()
    broken = {3: b"", 5: content[: len(content) // 2]}
    records = []
    for i in range(13):
        path = tmp_path / f"{i}.jpg"
        path.write_bytes(broken.get(i, content))
        records.append(Record(path, i % 2, "train" if i < 11 else "test"))
    return ImageSet(("crow", "wren"), tuple(records))


def test_finds_the_broken_files_in_order(images):
    calls = []
    errors = find_unreadable(images.records, progress=lambda *call: calls.append(call))
    assert [(error.path.name, error.reason) for error in errors] == [
        ("3.jpg", "empty file"),
        ("5.jpg", "truncated file"),
    ]
    assert calls == [(done, 13, "checking files") for done in range(1, 14)]
    assert all(error.__traceback__ is None and error.__cause__ is None for error in errors)


def test_a_file_listed_twice_is_reported_once(images):
    errors = find_unreadable(images.records + images.records)
    assert len(errors) == 2


def test_the_pixel_limit_is_passed_on(images):
    errors = find_unreadable(images.records[:1], max_pixels=256 * 256 - 1)
    assert "over the limit" in errors[0].reason
    assert not find_unreadable(images.records[:1], max_pixels=256 * 256)


def test_stop_names_the_files_and_the_option(images):
    errors = find_unreadable(images.records)
    with pytest.raises(DataError) as caught:
        apply_unreadable(images, errors, "stop")
    message = str(caught.value)
    assert message.startswith("2 image files cannot be read: ")
    assert f"{errors[0].path}: empty file; {errors[1].path}: truncated file. " in message
    assert "--data.on_unreadable skip" in message
    assert "\n" not in message


@pytest.mark.parametrize(("count", "ending"), [(1, ""), (10, ""), (13, "; and 3 more")])
def test_stop_names_ten_at_most(images, count, ending):
    errors = [UnreadableImageError(record.path, "empty file") for record in images.records[:count]]
    with pytest.raises(DataError) as caught:
        apply_unreadable(images, errors, "stop")
    message = str(caught.value)
    assert message.startswith(f"{count} image file{'s' if count > 1 else ''} cannot be read")
    assert message.count("empty file") == min(count, 10)
    assert f"empty file{ending}. Repair" in message


def test_skip_leaves_them_out(images):
    kept = apply_unreadable(images, find_unreadable(images.records), "skip")
    assert kept.class_names == images.class_names
    assert [record.path.stem for record in kept.records] == [str(i) for i in range(13) if i not in (3, 5)]


def test_skip_does_not_leave_a_class_without_training_images(images):
    errors = [
        UnreadableImageError(record.path, "empty file") for record in images.records if record.label == 1
    ]
    with pytest.raises(DataError, match="no training images: 'wren'"):
        apply_unreadable(images, errors, "skip")


def test_nothing_unreadable_changes_nothing():
    images = ImageSet(("crow",), (Record(Path("0.jpg"), 0, "train"),))
    assert apply_unreadable(images, [], "stop") is images
    assert apply_unreadable(images, [], "skip") is images


def test_a_file_that_hangs_is_named(images, monkeypatch):
    def hung(function, paths, num_workers, timeout):
        yield from map(function, paths[:4])
        raise TimeoutError(f"timed out after {timeout:g} seconds")

    monkeypatch.setattr(module, "in_threads", hung)
    with pytest.raises(DataError, match=r"4\.jpg: timed out after 7 seconds; .*--data\.read_timeout"):
        find_unreadable(images.records, timeout=7)
