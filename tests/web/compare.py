"""Does a page answer as `predict` does? `python -m tests.web.compare PAGE RUN FOLDER [NUMBER]`."""

import functools
import http.server
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

ASK = """async (paths) => {
  const {connect} = await import("/browser.js");
  const source = await connect(() => {});
  const answers = [];
  for (const path of paths) {
    const blob = await (await fetch(path)).blob();
    answers.push(await source.predict(blob, 1000).catch((error) => error.message));
  }
  return {answers, classes: source.classes, notice: source.notice};
}"""
"""Run in a page that has the photographs beside it: the answers with all classes."""


class Agreement(NamedTuple):
    """How far two answers for one photograph agree.

    Attributes:
        probability: Largest difference of a probability, fused or of a scale.
        top1: Whether the best class is the same.
        box: Largest difference of a box's edge, in pixels of the photograph; 0 without boxes.
        rules: Whether both are unknown, or neither, with the same set and the same group of a rank.
    """

    probability: float
    top1: bool
    box: float
    rules: bool


def agreement(found, expected):
    """Compare the page's answer with that of `to_json`."""
    probability, box = 0.0, 0.0
    for one, other in [(found, expected), *zip(found["scales"], expected["scales"], strict=True)]:
        theirs = dict(zip(other["labels"], other["probabilities"], strict=True))
        mine = dict(zip(one["labels"], one["probabilities"], strict=True))
        assert mine.keys() == theirs.keys()
        probability = max(probability, *(abs(theirs[label] - mine[label]) for label in mine))
    for one, other in zip(found["scales"], expected["scales"], strict=True):
        assert (one["box"] is None) == (other["box"] is None)
        if one["box"]:
            box = max(box, *(abs(a - b) for a, b in zip(one["box"], other["box"], strict=True)))
    same_rules = rules_of(found) == rules_of(expected)
    return Agreement(probability, found["labels"][0] == expected["labels"][0], box, same_rules)


def rules_of(answer):
    """Whether it is unknown, the classes of its set, its rank and group."""
    rank = answer["answer"]
    return answer["unknown"], set(answer["set"] or ()), rank and (rank["rank"], rank["name"])


def main(page, run, photographs, number="100"):
    from playwright.sync_api import sync_playwright

    from ramstrans.inference.arguments import expand_inputs
    from ramstrans.inference.predictor import Predictor
    from ramstrans.inference.writers import to_json
    from tests.conftest import BROWSER_FLAGS
    from tests.web.conftest import Quiet

    paths = list(expand_inputs([Path(photographs)]))
    paths = paths[:: max(len(paths) // int(number), 1)][: int(number)]

    class Both(Quiet):
        """Serves the page, and the photographs by number."""

        def translate_path(self, path):
            name = path.strip("/")
            return str(paths[int(name)]) if name.isdecimal() else super().translate_path(path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Both, directory=page))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=BROWSER_FLAGS)
        tab = browser.new_page()
        tab.goto(f"http://127.0.0.1:{server.server_port}/")
        start = time.perf_counter()
        answers = tab.evaluate(ASK, [str(index) for index in range(len(paths))])["answers"]
        seconds = (time.perf_counter() - start) / len(paths)
        browser.close()
    server.shutdown()
    predictor = Predictor.load(run, "cpu", "fp32")
    expected = map(to_json, predictor.stream(paths, len(predictor.class_names)))
    found = [agreement(*pair) for pair in zip(answers, expected, strict=True)]
    same = [one for one in found if one.box <= 1]
    sys.stdout.write(
        f"{len(found)} photographs, {seconds:.2f} s each; best class equal for "
        f"{sum(one.top1 for one in found)}, boxes equal to a pixel for {len(same)}, "
        f"unknown, set and rank equal for {sum(one.rules for one in found)}; probabilities differ by "
        f"at most {max(one.probability for one in found):.2g}, at most "
        f"{max(one.probability for one in same):.2g} where boxes are equal, median "
        f"{statistics.median(one.probability for one in found):.2g}\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
