"""A server of an exported folder, in a Python that has no torch."""

import http.client
import json
import subprocess
import sys

import pytest

from ramstrans.export.standalone import Standalone
from ramstrans.inference.writers import to_json
from tests.processes import ENVIRONMENT, ROOT

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from tests.serve.builders import JPEG
from tests.serve.test_server import ADDRESS, post

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from ramstrans.cli import main; sys.exit(main())"


@pytest.mark.slow
def test_an_exported_folder_answers_without_torch_as_its_predict_does(exported, photographs):
    line = [sys.executable, "-c", WITHOUT_TORCH, "serve", str(exported.folder), "--port", "0"]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=ROOT)
    try:
        port = next(int(found[1]) for text in process.stderr if (found := ADDRESS.search(text)))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        paths = photographs[:3]
        for path, expected in zip(paths, Standalone(exported.folder).stream(paths, 7), strict=True):
            status, body = post(connection, path.read_bytes())
            (row,), other = json.loads(body)["predictions"], to_json(expected)
            assert (status, row["labels"]) == (200, other["labels"])
            assert row["probabilities"] == pytest.approx(other["probabilities"], abs=1.1e-6)
            assert [scale["box"] for scale in row["scales"]] == [scale["box"] for scale in other["scales"]]
        connection.request("POST", "/predict?saliency=1&explain=1", paths[0].read_bytes(), JPEG)
        (row,) = json.loads(connection.getresponse().read())["predictions"]
        assert len(row["saliency"]) == 3
        assert row["explanation"]
        connection.close()
    finally:
        process.terminate()
        assert process.wait(60) == 0
        process.stderr.close()
