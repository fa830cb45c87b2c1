"""The two files of a calibration."""

import dataclasses
import errno
import json
import subprocess
import sys

import numpy as np
import pytest

from ramstrans.calibration.fitted import (
    ARRAYS_FILE,
    CALIBRATION_FILE,
    calibration_from_json,
    load_calibration,
    remove_calibration,
    save_calibration,
)
from ramstrans.errors import ConfigError, OutputError
from tests.calibration.builders import KNN, make_arrays, make_calibration


def test_it_is_read_as_it_was_written(tmp_path):
    written = make_calibration(notes=("a note",))
    save_calibration(tmp_path, written)
    assert load_calibration(tmp_path) == load_calibration(tmp_path, "abc") == written
    assert not (tmp_path / ARRAYS_FILE).exists()
    assert written.temperatures == (2.0, 0.5)
    assert written.needs == {"logits"}


def test_arrays_are_in_a_file_of_their_own(tmp_path):
    written = make_calibration(KNN, arrays=make_arrays())
    save_calibration(tmp_path, written)
    read = load_calibration(tmp_path)
    assert read.needs == {"features"}
    assert read.arrays.keys() == written.arrays.keys()
    for name, array in written.arrays.items():
        assert np.array_equal(read.arrays[name], array)
    assert "arrays" not in json.loads((tmp_path / CALIBRATION_FILE).read_text())


def test_another_one_replaces_all_of_it(tmp_path):
    save_calibration(tmp_path, make_calibration(KNN, arrays=make_arrays()))
    save_calibration(tmp_path, make_calibration())
    assert sorted(path.name for path in tmp_path.iterdir()) == [CALIBRATION_FILE]
    remove_calibration(tmp_path)
    remove_calibration(tmp_path)
    assert load_calibration(tmp_path) is None


def test_an_earlier_one_stays_if_another_cannot_be_written(tmp_path, monkeypatch):
    save_calibration(tmp_path, make_calibration(KNN, arrays=make_arrays()))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    monkeypatch.setattr("safetensors.numpy.save", full)
    with pytest.raises(OutputError, match="cannot be written"):
        save_calibration(tmp_path, make_calibration(KNN, arrays=make_arrays()))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_other_weights_are_told(tmp_path):
    save_calibration(tmp_path, make_calibration())
    with pytest.raises(ConfigError, match=r"fitted for other weights.*calibrate RUN` again"):
        load_calibration(tmp_path, "def")


def test_arrays_that_are_gone_are_told(tmp_path):
    save_calibration(tmp_path, make_calibration(KNN, arrays=make_arrays()))
    (tmp_path / ARRAYS_FILE).unlink()
    with pytest.raises(ConfigError, match=rf"{ARRAYS_FILE} is missing or damaged"):
        load_calibration(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values | {"format_version": 2}, "newer ramstrans"),
        (lambda values: values | {"scales": "1"}, "calibration.scales is '1'"),
        (lambda values: values | {"more": 1}, "unknown more"),
        (lambda values: {key: values[key] for key in values if key != "fused"}, "lacks fused"),
        (lambda _: [1], "not JSON of a calibration"),
    ],
)
def test_a_damaged_file_is_told(change, message, tmp_path):
    values = json.loads(make_calibration().to_json())
    (tmp_path / CALIBRATION_FILE).write_text(json.dumps(change(values)))
    with pytest.raises(ConfigError, match=message):
        load_calibration(tmp_path)


def test_not_json_is_told():
    with pytest.raises(ConfigError, match="not JSON"):
        calibration_from_json("{")


def test_numbers_that_json_lacks_are_refused():
    broken = dataclasses.replace(make_calibration(), scales=(float("nan"),))
    assert "NaN" not in broken.to_json()


@pytest.mark.slow
def test_it_is_used_without_torch():
    code = "import ramstrans.calibration.answers, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
