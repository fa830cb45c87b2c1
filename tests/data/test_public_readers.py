import subprocess
import sys

import pytest

import ramstrans.data
from ramstrans.data import ImageSet, Record, read_image_folder


def test_every_public_name_is_there():
    assert all(getattr(ramstrans.data, name) for name in ramstrans.data.__all__)
    with pytest.raises(AttributeError, match=r"ramstrans\.data' has no attribute 'read_nothing'"):
        _ = ramstrans.data.read_nothing


def test_a_reader_gives_an_image_set_of_records(colors):
    images = read_image_folder(colors)
    assert isinstance(images, ImageSet)
    assert all(isinstance(record, Record) for record in images.records)


def test_readers_are_light_to_import():
    code = (
        "import sys, ramstrans.data as data; [getattr(data, name) for name in data.__all__]; "
        "print({'torch', 'timm', 'matplotlib', 'datasets'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
