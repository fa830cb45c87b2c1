"""The routes: three ways to send images, options, limits, errors, counters."""

import asyncio
import base64
import io
import json

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("python_multipart", reason="python-multipart is not installed")
pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")

from PIL import Image

from ramstrans.data.preprocessing import Preprocessing
from ramstrans.inference.predictor import Predictor
from ramstrans.inference.writers import to_json
from ramstrans.serve import app as module
from ramstrans.serve.limits import Limits
from ramstrans.serve.run_engine import RunEngine
from tests.inference.builders import draw, make_folder
from tests.serve.builders import JPEG, FakeEngine, ask, png, talk


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("run"), zoom_source="full")
    return Predictor.load(folder, "cpu", "fp32")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    return [draw(folder / f"{n}.jpg", 300 + 40 * n, 260 - 20 * n, seed=n) for n in range(3)]


def in_base64(*contents):
    return [base64.b64encode(content).decode() for content in contents]


def test_each_way_to_send_images_gives_the_rows_of_predict(predictor, photographs):
    contents = [path.read_bytes() for path in photographs]

    async def conversation(client, _app):
        files = [("files", (path.name, path.read_bytes(), "image/jpeg")) for path in photographs]
        one_by_one = [
            await client.post("/predict?top_k=7", content=content, headers=JPEG) for content in contents
        ]
        form = await client.post("/predict", files=files, data={"top_k": "7"})
        in_json = await client.post("/predict", json={"images": in_base64(*contents), "top_k": 7})
        return [row for each in one_by_one for row in rows_of(each)], rows_of(form), rows_of(in_json)

    by_bytes, by_form, by_json = talk(RunEngine(predictor), conversation)
    assert [row["name"] for row in by_form] == ["0.jpg", "1.jpg", "2.jpg"]
    assert [row["name"] for row in by_bytes + by_json] == [None] * 6
    expected = [to_json(prediction) for prediction in predictor(photographs, top_k=7)]
    for rows in (by_bytes, by_form, by_json):
        for row, other in zip(rows, expected, strict=True):
            assert row.keys() - {"name"} == other.keys() - {"path"}
            assert (row["labels"], row["error"]) == (other["labels"], None)
            assert row["probabilities"] == pytest.approx(other["probabilities"], abs=1.1e-6)
            for scale, theirs in zip(row["scales"], other["scales"], strict=True):
                assert (scale["labels"], scale["box"]) == (theirs["labels"], theirs["box"])
                assert scale["has_region"] == theirs["has_region"]
                assert scale["probabilities"] == pytest.approx(theirs["probabilities"], abs=1.1e-6)


def rows_of(response):
    assert response.status_code == 200, response.text
    return response.json()["predictions"]


def test_saliency_and_the_view_that_it_lies_over(predictor):
    response = ask(RunEngine(predictor), "POST", "/predict?saliency=1", content=png(122, 61), headers=JPEG)
    (row,) = rows_of(response)
    assert row["view"] == [42, 4, 79, 57]  # 53 rows and 37 columns in the centre of 61 x 122
    assert [len(line) for line in row["saliency"]] == [2, 2, 2]  # patches of 16 in 48 x 32
    values = [value for line in row["saliency"] for value in line]
    assert max(values) == 1
    assert min(values) >= 0


def test_the_view_of_a_padded_image_extends_beyond_it(tmp_path):
    padded = Preprocessing((64, 64), (64, 64), "pad")
    folder = make_folder(tmp_path, preprocessing=padded, image_size=64)
    engine = RunEngine(Predictor.load(folder, "cpu", "fp32"))
    (row,) = rows_of(ask(engine, "POST", "/predict?saliency=1", content=png(128, 64), headers=JPEG))
    assert row["view"] == [0, -32, 128, 96]


def test_an_explanation_is_a_picture_of_photograph_and_region(predictor, photographs):
    content = photographs[0].read_bytes()
    (row,) = rows_of(
        ask(RunEngine(predictor), "POST", "/predict?explain=true", content=content, headers=JPEG)
    )
    picture = Image.open(io.BytesIO(base64.b64decode(row["explanation"])))
    assert picture.format == "PNG"
    assert picture.height == 444  # 300 x 260, the longer side at 512
    assert picture.width > 512


def test_options_of_the_body_count_more_than_those_of_the_query():
    assert (
        len(rows_of(ask(FakeEngine(), "POST", "/predict?top_k=2", content=b"a", headers=JPEG))[0]["labels"])
        == 2
    )
    body = {"images": in_base64(b"a"), "top_k": 1}
    (row,) = rows_of(ask(FakeEngine(), "POST", "/predict?top_k=2&saliency=1", json=body))
    assert row["labels"] == ["a"]
    assert [scale["labels"] for scale in row["scales"]] == [["a"], ["a"]]
    assert row["saliency"] == [[0, 0.25], [0.5, 1]]
    assert row["view"] == [-1, 0, 5.5, 4]


def test_requests_of_one_batch_get_their_own_top_k():
    async def conversation(client, _app):
        engine.gate.clear()
        posts = [client.post(f"/predict?top_k={k}", content=b"a", headers=JPEG) for k in (3, 1, 2, 9)]
        tasks = [asyncio.create_task(post) for post in posts]
        await until(lambda: client_waits(_app) == 4)
        engine.gate.set()
        return [len(rows_of(response)[0]["probabilities"]) for response in await asyncio.gather(*tasks)]

    engine = FakeEngine()
    assert talk(engine, conversation) == [3, 1, 2, 3]
    assert sum(engine.batches) == 4
    assert len(engine.batches) < 4


def client_waits(app):
    return app.state.service.gate.num_images


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


FORM = {"Content-Type": "multipart/form-data; boundary=x"}
WRONG = {
    "no type": ({"content": b"a"}, 415, "content type is ''"),
    "curl -d": (
        {"content": b"a", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        415,
        "send multipart",
    ),
    "zipped": ({"content": b"a", "headers": JPEG | {"Content-Encoding": "gzip"}}, 415, "encoding is 'gzip'"),
    "empty": ({"content": b"", "headers": JPEG}, 200, ""),
    "broken": ({"content": b"x", "headers": JPEG}, 422, "the image cannot be read: truncated file"),
    "option": ({"content": b"a", "headers": JPEG, "params": {"topk": 3}}, 422, "query.topk: there is no"),
    "top_k": ({"content": b"a", "headers": JPEG, "params": {"top_k": 0}}, 422, "greater than or equal to 1"),
    "not JSON": ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 422, "Invalid JSON"),
    "no images": ({"json": {}}, 422, "images: Field required"),
    "none": ({"json": {"images": []}}, 422, "no images"),
    "a number": ({"json": {"images": [3]}}, 422, "images.0: Input should be a valid string (it is 3)"),
    "field": ({"json": {"images": ["YQ=="], "topk": 3}}, 422, "topk: there is no"),
    "URL": (
        {"json": {"images": ["https://a.org/b.jpg"]}},
        422,
        "images[0] is a URL; this server fetches nothing",
    ),
    "file": ({"json": {"images": ["file:///etc/passwd"]}}, 422, "images[0] is a URL"),
    "base64": ({"json": {"images": ["data:image/png;base64,YQ=="]}}, 422, "is not base64"),
    "letters": ({"json": {"images": ["é"]}}, 422, "is not base64"),
    "too many": ({"json": {"images": ["YQ=="] * 5}}, 413, "5 images; send 4 per request at most"),
    "many files": ({"files": [("files", ("a", b"a"))] * 5}, 413, "Too many files"),
    "other field": ({"files": [("file", ("a", b"a"))]}, 422, "the field of a file is 'file'; give files"),
    "no file": ({"content": b"--x--\r\n", "headers": FORM}, 422, "no images"),
    "text": (
        {
            "content": b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\na\r\n--x--\r\n',
            "headers": FORM,
        },
        422,
        "has no file name",
    ),
    "form": ({"content": b"abc", "headers": FORM}, 422, "the form cannot be used"),
    "boundary": (
        {"content": b"abc", "headers": {"Content-Type": "multipart/form-data"}},
        422,
        "Missing boundary",
    ),
    "form option": ({"files": [("files", ("a", b"a"))], "data": {"topk": "1"}}, 422, "topk: there is no"),
    "surrogate": ({"files": [("files", ("a", b"a"))], "data": {"\ufffe": "1"}}, 422, "no such option"),
    "large": ({"content": b"a" * 2001, "headers": JPEG}, 413, "2,000 bytes"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_line(name):
    request, status, text = WRONG[name]
    limits = Limits(max_bytes=2000, max_images=4)
    response = ask(FakeEngine(), "POST", "/predict", limits, **request)
    assert response.status_code == status, response.text
    if status != 200:
        detail = response.json()["detail"]
        assert text in detail
        assert "\n" not in detail


def test_a_body_without_a_length_is_cut_off_at_the_limit():
    sent = []

    async def chunks():
        for _ in range(100):
            sent.append(1)
            yield b"a" * 1000

    response = ask(FakeEngine(), "POST", "/predict", Limits(max_bytes=2000), content=chunks(), headers=JPEG)
    assert response.status_code == 413


def test_among_several_an_image_that_cannot_be_read_is_a_row():
    first, second = rows_of(
        ask(FakeEngine(), "POST", "/predict?saliency=1", json={"images": in_base64(b"x", b"a")})
    )
    assert (first["error"], first["labels"], first["saliency"]) == ("truncated file", [], None)
    assert (second["error"], second["labels"]) == (None, ["a", "b", "c"])
    assert "present" not in first


def test_one_that_cannot_be_read_has_no_labels_where_there_may_be_several():
    engine = FakeEngine()
    engine.multi_label = True
    first, _ = rows_of(ask(engine, "POST", "/predict", json={"images": in_base64(b"x", b"a")}))
    assert (first["error"], first["present"]) == ("truncated file", [])


def test_a_full_queue_refuses_and_recovers():
    async def conversation(client, app):
        engine.gate.clear()
        first = [asyncio.create_task(client.post("/predict", content=b"a", headers=JPEG)) for _ in range(3)]
        await until(lambda: client_waits(app) == 3)
        refused = await client.post("/predict", content=b"a", headers=JPEG)
        engine.gate.set()
        await asyncio.gather(*first)
        several = await client.post("/predict", json={"images": in_base64(*[b"a"] * 4)})
        return refused, several, await client.post("/predict", content=b"a", headers=JPEG)

    engine = FakeEngine()
    refused, several, later = talk(engine, conversation, Limits(max_queue=3))
    assert refused.status_code == several.status_code == 503
    assert refused.headers["Retry-After"] == "1"
    assert "3 images of 3 allowed are waiting" in refused.json()["detail"]
    assert later.status_code == 200


def test_bodies_that_arrive_at_once_are_bounded():
    async def conversation(client, app):
        gate = app.state.service.gate
        gate.num_bytes = 7500
        return await client.post("/predict", content=b"a" * 600, headers=JPEG)

    assert talk(FakeEngine(), conversation, Limits(max_bytes=1000)).status_code == 503


def test_an_answer_that_takes_too_long_is_given_up_and_the_next_one_is_right():
    async def conversation(client, _app):
        engine.gate.clear()
        late = await client.post("/predict", content=b"a", headers=JPEG)
        waiting = client_waits(_app)
        engine.gate.set()
        await until(lambda: engine.batches)
        return late, waiting, await client.post("/predict", content=b"a", headers=JPEG)

    engine = FakeEngine()
    late, waiting, later = talk(engine, conversation, Limits(timeout=0.2))
    assert (late.status_code, waiting) == (504, 0)
    assert "no answer within 0.2 seconds" in late.json()["detail"]
    assert later.status_code == 200


def test_a_body_that_does_not_arrive_is_given_up():
    async def never():
        yield b"a"
        await asyncio.sleep(60)

    response = ask(FakeEngine(), "POST", "/predict", Limits(timeout=0.2), content=never(), headers=JPEG)
    assert response.status_code == 408


def test_a_model_that_fails_is_a_500_and_stays_in_use():
    async def conversation(client, _app):
        engine.error = ValueError("weights\nare gone")
        failed = await client.post("/predict", content=b"a", headers=JPEG)
        engine.error = None
        return failed, await client.post("/predict", content=b"a", headers=JPEG)

    engine = FakeEngine()
    failed, later = talk(engine, conversation)
    assert failed.status_code == 500
    assert failed.json()["detail"] == "the model failed: ValueError: weights are gone"
    assert later.status_code == 200


def test_a_key_is_asked_for():
    async def conversation(client, _app):
        codes = {}
        for name, headers in {
            "none": {},
            "wrong": {"Authorization": "Bearer other"},
            "basic": {"Authorization": "Basic key"},
            "odd": {"Authorization": b"Bearer \xe9"},
            "right": {"Authorization": "Bearer key"},
        }.items():
            codes[name] = (await client.post("/predict", content=b"a", headers=JPEG | headers)).status_code
        for path in ("/model", "/metrics", "/health", "/ready"):
            codes[path] = (await client.get(path)).status_code
        return codes, await client.post("/predict")

    codes, refused = talk(FakeEngine(), conversation, key="key")
    assert codes == {"none": 401, "wrong": 401, "basic": 401, "odd": 401, "right": 200} | {
        **{"/model": 401, "/metrics": 401, "/health": 200, "/ready": 200}
    }
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert "Authorization: Bearer KEY" in refused.json()["detail"]


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_monitors_may_ask_for_the_status_alone(path):
    answer = ask(FakeEngine(), "HEAD", path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_stopping_server_is_not_ready_and_closes_its_connections():
    async def conversation(client, app):
        before = await client.get("/ready")
        app.state.service.is_stopping = True
        return before, await client.get("/ready"), await client.post("/predict", content=b"a", headers=JPEG)

    before, ready, answered = talk(FakeEngine(), conversation)
    assert (before.status_code, ready.status_code, answered.status_code) == (200, 503, 200)
    assert "Connection" not in before.headers
    assert ready.headers["Connection"] == answered.headers["Connection"] == "close"


def test_what_is_counted():
    async def conversation(client, _app):
        await client.post("/predict", json={"images": in_base64(b"a", b"a", b"x")})
        await client.post("/predict", content=b"x", headers=JPEG)
        await client.get("/wp-admin")
        return (await client.get("/metrics")).text.splitlines()

    lines = talk(FakeEngine(), conversation)
    for line in (
        'ramstrans_requests_total{path="/predict",status="200"} 1.0',
        'ramstrans_requests_total{path="/predict",status="422"} 1.0',
        'ramstrans_requests_total{path="other",status="404"} 1.0',
        'ramstrans_images_total{result="answered"} 2.0',
        'ramstrans_images_total{result="unreadable"} 2.0',
        "ramstrans_batch_size_sum 2.0",
        "ramstrans_waiting_images 0.0",
    ):
        assert line in lines


def test_the_model_and_its_limits():
    about = ask(FakeEngine(), "GET", "/model", Limits(max_batch=3)).json()
    assert about["classes"] == ["a", "b", "c"]
    assert (about["max_batch"], about["max_pixels"]) == (3, 1000)


def test_the_description_names_what_is_read_and_nothing_is_fetched():
    async def conversation(client, _app):
        return [await client.get(path) for path in ("/openapi.json", "/docs", "/redoc")]

    described, *pages = talk(FakeEngine(), conversation)
    operation = described.json()["paths"]["/predict"]["post"]
    assert set(operation["requestBody"]["content"]) == {
        *("multipart/form-data", "application/json", "application/octet-stream", "image/*")
    }
    assert {"200", "401", "408", "413", "415", "422", "503", "504"} <= set(operation["responses"])
    assert [page.status_code for page in pages] == [404, 404]
    assert "http" not in json.dumps(described.json())


def test_the_page_is_served_where_there_is_one(tmp_path, monkeypatch):
    (tmp_path / "index.html").write_text("<title>birds</title>")
    (tmp_path / "page.js").write_text("1")
    monkeypatch.setattr(module, "page_folder", lambda: tmp_path)

    async def conversation(client, _app):
        return [await client.get(path) for path in ("/", "/page.js", "/../pyproject.toml", "/health")]

    page, script, outside, health = talk(FakeEngine(), conversation)
    assert (page.status_code, page.text) == (200, "<title>birds</title>")
    assert script.headers["Content-Type"].startswith("text/javascript")
    assert outside.status_code == 404
    assert health.json() == {"status": "ok"}


def test_why_not_another_class():
    (row,) = rows_of(ask(FakeEngine(), "POST", "/predict?against=b", content=b"a", headers=JPEG))
    assert row["against"] == {
        **{"answer": "a", "class": "b", "probabilities": [0.5, 0.3], "differences": [1.0]},
        "picture": base64.b64encode(b"P").decode(),
    }
    refused = ask(FakeEngine(), "POST", "/predict?against=z", content=b"a", headers=JPEG)
    assert (refused.status_code, refused.json()["detail"]) == (422, "against is none of the classes")
    (row,) = rows_of(ask(FakeEngine(), "POST", "/predict", content=b"a", headers=JPEG))
    assert "against" not in row
    rows = rows_of(ask(FakeEngine(), "POST", "/predict?against=b", json={"images": in_base64(b"xx", b"a")}))
    assert [row["against"] is None for row in rows] == [True, False]


def test_after_a_refusal_the_rest_of_the_request_is_not_computed():
    async def conversation(client, _app):
        images = {"images": in_base64(*[b"a"] * 40)}
        refused = await client.post("/predict?against=z", json=images)
        done = sum(engine.batches)
        await asyncio.sleep(0.1)
        return refused, done

    engine = FakeEngine()
    refused, done = talk(engine, conversation, Limits(max_batch=4))
    assert refused.status_code == 422
    assert sum(engine.batches) <= done + 4 < 40  # but for the batch that is being computed


def test_a_run_says_why_and_shows_no_training_photographs(predictor, photographs):
    content = photographs[0].read_bytes()
    (row,) = rows_of(
        ask(RunEngine(predictor), "POST", "/predict?against=runner_up", content=content, headers=JPEG)
    )
    compared = row["against"]
    assert [compared["answer"], compared["class"]] == row["labels"][:2]
    assert compared.keys() == {"answer", "class", "probabilities", "differences", "picture"}
    with Image.open(io.BytesIO(base64.b64decode(compared["picture"]))) as picture:
        assert picture.size == (2 * 320 + 8, 320)
