"""The page and `ramstrans serve` together: a real browser before a real server and a model."""

import csv
import io
import os
import re
import signal

import pytest

from tests.inference.builders import draw, make_folder
from tests.processes import start

pytestmark = pytest.mark.slow  # a browser and a server process

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

ADDRESS = re.compile(r"answers at (http://127\.0\.0\.1:\d+)")


def test_a_photograph_gets_the_answer_of_predict(open_page, tmp_path):
    from ramstrans.inference.predictor import Predictor

    run = make_folder(tmp_path / "run", zoom_source="full")
    (tmp_path / "key").write_text("bird-seed\n")
    paths = [draw(tmp_path / f"photo{n}.jpg", 300 + 40 * n, 200, seed=n) for n in range(3)]
    (tmp_path / "broken.jpg").write_bytes(paths[0].read_bytes()[:300])
    child = start("serve", run, "--port", "0", "--device", "cpu", "--api_key_file", tmp_path / "key")
    errors = child.folder / "stderr"
    child.wait_for(lambda: ADDRESS.search(errors.read_text()))
    page = open_page(ADDRESS.search(errors.read_text())[1] + "/")
    page.get_by_label("This server answers only with its key").fill("bird-seed")
    page.keyboard.press("Enter")
    page.locator("#key-form").wait_for(state="hidden")
    page.problems.clear()  # the status 401 that made the page ask

    page.locator("#files").set_input_files([*paths, tmp_path / "broken.jpg"])
    page.locator("[data-state=done], [data-state=failed]").nth(3).wait_for(state="attached")
    assert page.locator("[data-state=failed]").count() == 1
    page.problems.clear()  # the status 422 of the broken file
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8"))))
    expected = list(Predictor.load(run, "cpu").stream(paths, 5))
    for row, prediction in zip(rows, expected, strict=False):
        probabilities = [float(row[f"probability_{rank}"]) for rank in range(1, 6)]
        assert [row[f"label_{rank}"] for rank in range(1, 6)] == list(prediction.labels)
        assert probabilities == pytest.approx(list(prediction.probabilities), abs=2e-6)
        box = [float(row[f"region_{side}"]) for side in ("x0", "y0", "x1", "y1")]
        assert box == pytest.approx(list(prediction.scales[0].box), abs=0.01)
    assert len(rows) == 4
    assert rows[3]["path"] == "broken.jpg"
    assert rows[3]["error"]

    page.locator("#gallery button").nth(1).click()
    assert expected[1].labels[0] in page.locator("#answer").inner_text()
    page.locator("#looks li").nth(1).wait_for()
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait().returncode == 0
