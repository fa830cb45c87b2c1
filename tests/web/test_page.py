"""The page in a real browser, with a server that answers: what people do, and what they are shown."""

import csv
import io

import pytest
from PIL import Image

from ramstrans.plain import join_labels
from tests.web.conftest import PAGE, Stub
from tests.web.packages import AXE, needs_package

pytestmark = pytest.mark.slow  # a browser


@pytest.fixture(scope="module")
def address(serve):
    return serve(PAGE, Stub)


@pytest.fixture
def photographs(tmp_path):
    """Makes photographs of these names, 200 x 100 pixels."""

    def photographs(*names):
        paths = [tmp_path / name for name in names]
        for path in paths:
            Image.new("RGB", (200, 100), (90, 140, 60)).save(path, "JPEG")
        return paths

    return photographs


def classify(page, paths):
    """Choose files and wait for all answers."""
    before = page.locator("#gallery li").count()
    page.locator("#files").set_input_files(paths)
    settled = page.locator("[data-state=done], [data-state=failed]")
    settled.nth(before + len(paths) - 1).wait_for(state="attached")


def texts(page, selector):
    return [" ".join(text.split()) for text in page.locator(selector).all_inner_texts()]


def test_why_it_is_not_the_second_class(open_page, address, photographs):
    Stub.seen.clear()
    page = open_page(address)
    classify(page, photographs("heron.jpg", "jay.jpg"))
    button = page.get_by_role("button", name="Why not Crow, <b>hooded</b>?")
    button.click()
    figure = page.locator("#contrast")
    figure.wait_for()
    caption = "Blue speaks for Black footed Albatross, orange for Crow, <b>hooded</b>."
    assert figure.inner_text().strip() == caption
    assert page.evaluate("() => document.querySelector('#contrast img').naturalWidth") == 64
    assert Stub.seen[-1][:3] == (
        *("/predict", {"against": ["Crow, <b>hooded</b>"], "top_k": ["1"]}),
        page.locator("#name").inner_text(),
    )
    assert button.is_hidden()
    page.locator("#gallery button").nth(1).click()  # another photograph has not been asked about
    assert figure.is_hidden()
    assert button.is_visible()


def test_an_answer_with_bars_region_and_looks(open_page, address, photographs):
    Stub.seen.clear()
    page = open_page(address)
    classify(page, photographs("heron.jpg"))
    assert [(path, query, name) for path, query, name, _ in Stub.seen] == [
        ("/predict", {"saliency": ["true"], "top_k": ["5"]}, "heron.jpg")
    ]
    assert page.locator("#answer").inner_text() == "Black footed Albatross"
    assert page.locator("#badge").is_hidden()
    assert texts(page, "#bars li") == [
        *("Black footed Albatross > 99 %", "Crow, <b>hooded</b> < 1 %", "Jay < 1 %"),  # names are no HTML
    ]
    page.locator("#boxes div").wait_for(state="attached")
    assert texts(page, "#looks li") == [
        "First look: the whole photograph Black footed Albatross, 60 %",
        "Second look: this region Black footed Albatross, > 99 %",
    ]
    image, frame = page.locator("#image").bounding_box(), page.locator("#boxes div").bounding_box()
    assert frame["x"] - image["x"] == pytest.approx(image["width"] / 4, abs=1)
    assert frame["width"] == pytest.approx(image["width"] / 2, abs=1)
    assert frame["y"] - image["y"] == pytest.approx(image["height"] / 5, abs=1)
    assert frame["height"] == pytest.approx(image["height"] * 0.6, abs=1)
    highest = page.evaluate(
        "() => { const c = document.getElementById('saliency');"
        " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let best = 0;"
        " for (let i = 0; i < d.length; i += 4) if (d[i] > d[best]) best = i;"
        " return [(best / 4) % c.width / c.width, Math.floor(best / 4 / c.width) / c.height]; }"
    )
    assert highest[0] == pytest.approx(0.5, abs=0.2)  # the second of three columns, the second of two rows
    assert highest[1] == pytest.approx(0.75, abs=0.25)
    page.get_by_label("where it looked").uncheck()
    assert "off" in page.locator("#saliency").get_attribute("class")
    page.get_by_label("region").uncheck()
    assert "off" in page.locator("#boxes").get_attribute("class")


def test_unsure_is_said(open_page, address, photographs):
    page = open_page(address)
    classify(page, photographs("low.jpg", "close.jpg", "heron.jpg"))
    assert page.locator("#badge").inner_text() == "Not sure"
    assert " ".join(page.locator("#why").inner_text().split()) == "The best guess has only 40 %."
    page.locator("#gallery button").nth(1).click()
    assert page.locator("#badge").is_visible()
    assert " ".join(page.locator("#why").inner_text().split()) == (
        "Crow, <b>hooded</b> is close behind, with 40 %."
    )
    assert [text.split(",")[0] for text in texts(page, "#gallery strong")] == [
        *("not sure: Black footed Albatross", "not sure: Black footed Albatross", "Black footed Albatross"),
    ]
    assert page.locator("#status").inner_text() == "3 photographs done, 2 not sure."
    page.locator("#gallery button").nth(2).click()
    assert page.locator("#badge").is_hidden()


def test_one_scale_and_no_region(open_page, address, photographs):
    page = open_page(address)
    classify(page, photographs("once.jpg"))
    page.locator("#image").wait_for()
    assert page.locator(".switches").is_hidden()
    assert page.locator("#looks li").count() == 0
    classify(page, photographs("flat.jpg"))
    page.locator("#looks li").nth(1).wait_for()
    assert texts(page, "#looks li")[1].startswith("Second look: all again: nothing stood out")
    assert page.locator("#boxes div").count() == 0


def test_errors_are_words(open_page, address, photographs):
    page = open_page(address)
    words = {
        "large.jpg": "About large.jpg.",
        "odd.txt": "About odd.txt.",
        "broken.jpg": "About broken.jpg.",
        "proxy.jpg": "The server took too long; try again.",
        "unreadable.jpg": "It cannot be read: truncated file.",
    }
    classify(page, photographs(*words))
    for button, expected in zip(page.locator("#gallery button").all(), words.values(), strict=True):
        button.click()
        assert page.locator("#answer").inner_text() == "No answer"
        assert page.locator("#why").inner_text() == expected
    assert page.locator("#status").inner_text() == "5 photographs done, 5 could not be read."
    page.problems.clear()  # Chromium notes each status above 399


def test_what_the_server_would_refuse_is_not_sent(open_page, address, tmp_path):
    page = open_page(address)
    page.locator("#lead").filter(has_text="tells 3 classes apart").wait_for()
    (tmp_path / "heavy.jpg").write_bytes(bytes(2_100_000))
    classify(page, [tmp_path / "heavy.jpg"])
    assert page.locator("#why").inner_text() == "It has 2.1 MB; this server takes up to 1.0 MB."
    assert all(name != "heavy.jpg" for *_, name, _ in Stub.seen)


def test_a_server_with_a_key(open_page, serve, photographs):
    class Guarded(Stub):
        key = "Bearer of, news"

    page = open_page(serve(PAGE, Guarded))
    page.get_by_label("This server answers only with its key").fill("guess")
    page.keyboard.press("Enter")
    page.locator("#status").filter(has_text="does not accept this key").wait_for()
    page.get_by_label("This server answers only with its key").fill("of, news")
    page.keyboard.press("Enter")
    page.locator("#lead").filter(has_text="tells 3 classes apart").wait_for()
    assert page.locator("#key-form").is_hidden()
    classify(page, photographs("heron.jpg"))
    assert page.locator("#answer").inner_text() == "Black footed Albatross"
    page.problems.clear()  # the 401s


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("group.jpg", ". The family Corvidae is certain, with 94 %. Without priors: Jay, 60 %."),
        ("no_rank.jpg", ". No rank is certain."),
        ("sure.jpg", ""),
    ],
)
def test_ranks_and_priors_are_told(open_page, address, photographs, name, words):
    page = open_page(address)
    classify(page, photographs(name))
    assert texts(page, "#why") == [f"> 99 % sure{words}"]
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    (row,) = csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8")))
    rank = {"group.jpg": "family", "no_rank.jpg": "root", "sure.jpg": "species"}[name]
    assert row["answer_rank"] == rank
    assert (row["priors"], row["changed"]) == (("every photograph", "True") if "Jay" in words else ("", ""))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("one_of.jpg", "> 99 % sure. Possible, with 95 %: Black footed Albatross, Crow, <b>hooded</b>."),
        ("many.jpg", "> 99 % sure. Possible, with 95 %: a, b, c, d, e and 2 more."),
        ("only.jpg", "> 99 % sure"),
        ("other.jpg", "> 99 % sure. Possible without priors, with 95 %: Jay. Without priors: Jay, 60 %."),
    ],
)
def test_the_set_is_told_where_it_is_not_the_answer(open_page, address, photographs, name, words):
    page = open_page(address)
    classify(page, photographs(name))
    assert texts(page, "#why") == [words]
    assert page.locator("#answer").inner_text() == "Black footed Albatross"


def test_unknown_is_said(open_page, address, photographs):
    page = open_page(address)
    page.locator("#lead").filter(has_text="tells 3 classes apart").wait_for()
    assert texts(page, "#always") == [
        "Unknown means: the photograph is unlike all that the model was trained on; 5 % of photographs of "
        "its own classes are called so, too."
    ]
    classify(page, photographs("alien.jpg", "low.jpg"))
    assert page.locator("#answer").inner_text() == "Unknown"
    assert page.locator("#badge").is_hidden()
    assert texts(page, "#why") == [
        "It is unlike all that the model knows. The nearest is Black footed Albatross, with > 99 %."
    ]
    assert texts(page, "#gallery strong")[0] == "unknown, nearest: Black footed Albatross, > 99 %"
    assert page.locator("#status").inner_text() == "2 photographs done, 1 not sure, 1 unknown."


def test_a_model_that_is_not_calibrated_promises_nothing(open_page, serve, photographs):
    class Plain(Stub):
        about = Stub.about | {"promises": {"coverage": None, "reject": None}}

    page = open_page(serve(PAGE, Plain))
    page.locator("#lead").filter(has_text="tells 3 classes apart").wait_for()
    assert texts(page, "#always")[0].startswith("The model always answers with a class that it knows")


def test_several_labels(open_page, serve, photographs):
    class Several(Stub):
        about = Stub.about | {"multi_label": True, "promises": {"coverage": None, "reject": None}}

    page = open_page(serve(PAGE, Several))
    page.locator("#lead").filter(has_text="This model looks for 3 labels").wait_for()
    assert texts(page, "#means")[0].startswith("A photograph may have several labels, or none")
    classify(page, photographs("two.jpg", "neither.jpg"))
    assert page.locator("#answer").inner_text() == "Black footed Albatross, Crow, <b>hooded</b>"
    assert texts(page, "#why") == [""]
    page.locator("#gallery button").nth(1).click()
    assert page.locator("#answer").inner_text() == "None of its labels"
    assert texts(page, "#why") == ["The most probable is Black footed Albatross, with 20 %."]
    assert page.locator("#badge").is_hidden()
    assert texts(page, "#gallery strong")[1] == "None of its labels"
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8"))))
    from ramstrans.inference.writers import column_names

    assert list(rows[0]) == column_names(3, multi_label=True)
    assert page.locator("#ask").is_hidden()  # the second label may be there, too
    assert texts(page, "#known summary") == ["The 3 labels that it knows"]
    assert [row["present"] for row in rows] == ["017.Black_footed_Albatross;Crow, <b>hooded</b>", ""]


@pytest.mark.parametrize("labels", [["a;b", "c\\"], ["d\\\\e", "f\\;g"], ["plain"]])
def test_labels_in_a_cell_are_those_of_predict(open_page, address, labels):
    page = open_page(address)
    text = page.evaluate(
        "async (present) => (await import('/words.js')).toCsv([{name: 'a', answer: "
        "{present, labels: [], probabilities: [], scales: []}}], {severalLabels: true})",
        labels,
    )
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["present"] == join_labels(labels)


def test_a_busy_server_is_asked_again(open_page, address, photographs):
    page = open_page(address)
    classify(page, photographs("busy.jpg"))
    assert page.locator("#answer").inner_text() == "Black footed Albatross"
    assert [name for *_, name, _ in Stub.seen].count("busy.jpg") == 3
    page.problems.clear()


def test_no_server(open_page, serve, photographs):
    page = open_page(serve(PAGE, Stub))
    page.locator("#privacy").filter(has_text="and nowhere else").wait_for()
    page.context.set_offline(True)
    classify(page, photographs("heron.jpg"))
    assert page.locator("#why").inner_text() == "The server cannot be reached; is it still running?"
    page.problems.clear()


def test_the_table_is_that_of_predict(open_page, address, photographs):
    page = open_page(address)
    classify(page, photographs("heron.jpg", "a, b.jpg", "broken.jpg"))
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    assert download.value.suggested_filename == "predictions.csv"
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8"))))
    from ramstrans.inference.writers import column_names

    assert list(rows[0]) == column_names(3)
    assert [row["path"] for row in rows] == ["heron.jpg", "a, b.jpg", "broken.jpg"]
    assert rows[1]["label_2"] == "Crow, <b>hooded</b>"
    assert (rows[0]["probability_1"], rows[0]["region_x0"], rows[0]["has_region"]) == ("0.9964", "50", "True")
    assert rows[2]["error"] == "About broken.jpg."
    assert rows[2]["label_1"] == ""
    page.problems.clear()


DROP = """(dropped) => {
  const transfer = new DataTransfer();
  for (const [name, text] of dropped) transfer.items.add(new File([Uint8Array.from(text)], name));
  if (!dropped.length) transfer.setData("text/uri-list", "https://birds.org/wren.jpg");
  const event = (kind) => new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true});
  document.body.dispatchEvent(event("dragenter"));
  const isMarked = document.body.classList.contains("dragging");
  document.body.dispatchEvent(event("drop"));
  return [isMarked, document.body.classList.contains("dragging")];
}"""

PASTE = """([name, bytes]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(bytes)], name, {type: "image/jpeg"}));
  document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true}));
}"""


def test_drop_paste_and_a_link(open_page, address, photographs):
    page = open_page(address)
    (path,) = photographs("heron.jpg")
    content = list(path.read_bytes())
    assert page.evaluate(DROP, []) == [True, False]
    assert page.locator("#status").inner_text().startswith("That is not a file. Save the photograph first")
    assert page.evaluate(DROP, [["dropped.jpg", content]]) == [True, False]
    page.locator("[data-state=done]").wait_for(state="attached")
    page.evaluate(PASTE, ["pasted.jpg", content])
    page.locator("[data-state=done]").nth(1).wait_for(state="attached")
    assert page.locator("#name").inner_text() == "pasted.jpg"


NOTE_CHOOSER = """() => document.getElementById("files").addEventListener("click", (event) => {
  event.preventDefault();
  event.target.dataset.opens = navigator.userActivation.isActive;
})"""


def test_by_keyboard(open_page, address, photographs):
    """The chooser opens when its field is clicked by a person's act.

    The chooser itself is not awaited: under load, its event is lost now and then on the way from Chromium.
    """
    page = open_page(address)
    page.locator("#privacy").filter(has_text="nowhere else").wait_for()
    page.bring_to_front()
    page.keyboard.press("Tab")
    page.locator("#choose:focus").wait_for()
    page.evaluate(NOTE_CHOOSER)
    page.keyboard.press("Enter")
    page.locator("#files[data-opens=true]").wait_for(state="attached")
    page.locator("#files").set_input_files(photographs("heron.jpg", "low.jpg", "close.jpg"))
    page.locator("[data-state=done]").nth(2).wait_for(state="attached")
    for focused in ("#download:focus", "#clear:focus", "#gallery li:first-child button:focus"):
        page.keyboard.press("Tab")
        page.locator(focused).wait_for()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")  # there is no fourth
    assert page.locator("#name").inner_text() == "close.jpg"
    assert page.locator(":focus").get_attribute("aria-current") == "true"
    page.get_by_role("button", name="Remove this photograph").press("Enter")
    assert page.locator("#name").inner_text() == "low.jpg"
    assert page.locator(":focus").get_attribute("aria-current") == "true"
    page.get_by_role("button", name="Remove all").press("Enter")
    assert page.locator("#detail").is_hidden()
    assert page.locator(":focus").get_attribute("id") == "choose"


def test_what_the_browser_cannot_show(open_page, address, tmp_path):
    page = open_page(address)
    (tmp_path / "phone.heic").write_bytes(b"of a kind that only the server reads")
    classify(page, [tmp_path / "phone.heic"])
    assert page.locator("#answer").inner_text() == "Black footed Albatross"
    page.get_by_text("This browser cannot show the photograph.").wait_for()


PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "device", [{"viewport": {"width": 1280, "height": 900}}, PHONE], ids=["desk", "phone"]
)
def test_accessible_to_all(open_page, address, photographs, scheme, device):
    axe = needs_package(AXE) / "axe.min.js"
    page = open_page(address, color_scheme=scheme, **device)
    is_phone = device is PHONE
    assert page.locator("#camera").is_visible() == is_phone
    assert page.locator("#capture").get_attribute("capture") == "environment"
    assert page.locator("#unstarted").count() == 0
    classify(page, photographs("heron.jpg", "low.jpg", "broken.jpg"))
    page.evaluate(axe.read_text(encoding="utf-8"))
    for number in range(3):
        page.locator("#gallery button").nth(number).click()
        found = page.evaluate("() => axe.run()")["violations"]
        assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []
    width = page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]  # nothing is wider than the screen
    assert page.locator("#status").get_attribute("role") == "status"
    page.problems.clear()  # of the broken one


def test_nothing_else_is_reached(open_page, address):
    page = open_page(address)
    policy = page.locator("meta[http-equiv='Content-Security-Policy']").get_attribute("content")
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    with pytest.raises(Exception, match="Failed to fetch"):
        page.evaluate("() => fetch('http://127.0.0.1:9/')")
    assert any("Content Security Policy" in problem for problem in page.problems)
    page.problems.clear()
    page.outside.clear()


def test_opened_as_a_file(open_page):
    page = open_page((PAGE / "index.html").as_uri())
    page.locator("#unstarted").wait_for()  # after four seconds, which a slow network may need
    assert "python -m http.server" in page.locator("#unstarted").inner_text()
    page.problems.clear()  # modules are not loaded from files
    page.outside.clear()
