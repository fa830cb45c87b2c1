"""`ramstrans predict` in a real process."""

import csv
import io

from tests.processes import run


def test_predict_in_a_process_of_its_own(trained, colors):
    """Paths come from a pipe; standard output is pure CSV, and the rest is elsewhere."""
    images = sorted((colors / "test").glob("*/*.png"))
    paths = "\n".join([*map(str, images), "missing.jpg"])
    done = run("predict", trained.folder, "-", "--top_k", "2", "--device", "cpu", stdin=paths)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["path"] for row in rows] == [*map(str, images), "missing.jpg"]
    assert {row["label_1"] for row in rows[:-1]} <= set(trained.prepared.images.class_names)
    assert all(0 < float(row["probability_1"]) <= 1 for row in rows[:-1])
    assert rows[-1]["error"] == "no such file"
    assert rows[-1]["label_1"] == ""
    assert "7 photographs, 1 of them unreadable" in done.stderr
