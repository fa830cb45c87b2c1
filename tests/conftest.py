"""What the tests of several folders share: two tiny data sets, and one tiny run on them."""

import errno
import os
import shutil
import signal
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from ramstrans.cli import main
from ramstrans.errors import DataError

ROOT = Path(__file__).parents[1]
os.environ["OMP_NUM_THREADS"] = "1"  # the tensors are too small for threads to pay
os.environ["PYTHONPATH"] = f"{ROOT / 'src'}:{ROOT}"  # child processes import what this one does
signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells ignore in the background

# the same 50 examples always, or 100 new ones, by --hypothesis-seed
settings.register_profile("fixed", deadline=None, print_blob=True, derandomize=True, max_examples=50)
settings.register_profile("random", deadline=None, print_blob=True, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


LONGEST = (
    *("test_resume.py", "test_processes.py", "test_ray_engine.py", "test_folder.py", "test_notebooks.py"),
    *("test_stops.py", "test_compare.py", "test_formats.py", "test_smaller.py", "test_page.py"),
    *("test_loader_faults.py", "test_graph.py", "test_browser.py", "test_train.py", "test_page_browser.py"),
)
"""Files by the time they take, the slow tests included."""


def pytest_collection_modifyitems(items):
    """Start the longest files first, so that at the end none keeps one worker busy and the other idle."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))


@pytest.fixture(autouse=True)
def whole_tables(monkeypatch):
    """Tables as in a file or pipe, whatever the terminal that the tests run in."""
    monkeypatch.delenv("COLUMNS", raising=False)


COLORS = {"Azure_tit": (20, 90, 230), "Bistre_owl": (120, 70, 20), "Coral_ibis": (240, 110, 90)}


class TrainedRun(NamedTuple):
    """One run, and what happened in it.

    Attributes:
        folder: The run folder.
        prepared: From `prepare`.
        report: From `train`.
        passes: The split of every pass over images in eval mode, in order.
    """

    folder: Path
    prepared: object
    report: dict
    passes: list


@pytest.fixture(scope="session")
def birds(tmp_path_factory):
    """A data set in CUB's layout: 3 classes of 4 training and 2 test images, with boxes and parts."""
    from ramstrans.data.toybirds.generator import make_toybirds

    root = tmp_path_factory.mktemp("data") / "birds"
    make_toybirds(root, num_classes=3, train_per_class=4, test_per_class=2, image_size=48)
    return root


@pytest.fixture(scope="session")
def colors(tmp_path_factory):
    """Image folders that any classifier can tell: 3 classes of 4 training and 2 test images, 40 x 48 px."""
    root, rng = tmp_path_factory.mktemp("data") / "colors", np.random.default_rng(0)
    for name, color in COLORS.items():
        for split, count in (("train", 4), ("test", 2)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                noise = rng.integers(-15, 16, (48, 40, 3))
                Image.fromarray((np.array(color) + noise).clip(0, 255).astype(np.uint8)).save(
                    folder / f"{index}.png"
                )
    return root


@pytest.fixture(scope="session")
def trained(birds, tmp_path_factory):
    """A run of 5 steps on `birds`, one bird a class held out for validation."""
    from ramstrans.evaluation import evaluate as judging
    from ramstrans.training import loop
    from ramstrans.training.run import prepare, train
    from tests.tiny import tiny_run

    passes, predict_split = [], judging.predict_split

    def noted(model, loader, *args, **options):
        passes.append({record.split for record in loader.dataset.records})
        return predict_split(model, loader, *args, **options)

    folder = tmp_path_factory.mktemp("runs") / "trained"
    prepared = prepare(tiny_run(birds))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "predict_split", noted)
        patch.setattr(judging, "predict_split", noted)
        patch.setattr(loop, "LOG_EVERY", 2)
        report = train(prepared, folder, command="ramstrans train --tiny")
    return TrainedRun(folder, prepared, report, passes)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stub of the Hugging Face hub, empty, and an empty cache; the user may do everything."""
    from huggingface_hub import constants, utils

    import ramstrans.hub
    from tests.hub_stub import WRITER, serving

    with serving() as hub:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stub has the older protocol
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        ramstrans.hub._downloaded.cache_clear()
        yield hub
        ramstrans.hub._downloaded.cache_clear()
        utils.close_session()


@pytest.fixture(params=[True])
def bf16_units(request, monkeypatch):
    """Let the CPU have units for bf16, or none: whatever this machine has."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: request.param)
    return request.param


@pytest.fixture
def no_pictures(monkeypatch):
    """Leave out the slowest part of an evaluation, which has tests of its own."""
    from ramstrans.evaluation.report import write as evaluation

    for name in ("plot_curves", "plot_gallery", "plot_confusion", "report_page", "labels_html"):
        monkeypatch.setattr(evaluation, name, lambda *_, **__: "")


@pytest.fixture(scope="session")
def tiny(birds, tmp_path_factory):
    """A config file of a run of two steps on `birds`."""
    from tests.tiny import write_config

    path = tmp_path_factory.mktemp("configs") / "tiny.yaml"
    return write_config(path, birds, model={"image_size": 32}, training={"max_steps": 2, "batch_size": 4})


@pytest.fixture
def config_of(monkeypatch):
    """The RunConfig that `ramstrans train` makes of its arguments; nothing is trained."""

    def config_of(*arguments):
        made = []

        def stop(config, *_, **__):
            made.append(config)
            raise DataError("stopped here")

        monkeypatch.setattr("ramstrans.training.run.prepare", stop)
        assert main(["train", *map(str, arguments)]) == DataError.exit_code
        return made[0]

    return config_of


@pytest.fixture
def fails(capsys):
    """Runs a command that must fail with this code: its one line on standard error."""

    def fails(code, *arguments):
        assert main(list(map(str, arguments))) == code
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "Traceback" not in printed.err
        line = printed.err.splitlines()[-1]
        assert line.startswith("ramstrans: ")
        assert sum(text.startswith("ramstrans: ") for text in printed.err.splitlines()) == 1
        return line

    return fails


@pytest.fixture
def opening_fails_once(monkeypatch):
    """Call it, and the next open of a file fails, or the first of each with a suffix; gives those files."""

    def begin(suffix=None):
        opened, failed = Path.open, []

        def fails_once(path, *mode, **options):
            fails = path.suffix == suffix and path not in failed if suffix else not failed
            if fails:
                failed.append(path)
                raise OSError(errno.EIO, "Input/output error", str(path))
            return opened(path, *mode, **options)

        monkeypatch.setattr(Path, "open", fails_once)
        return failed

    return begin


@pytest.fixture
def with_broken_file(colors, tmp_path):
    """A copy of `colors` with one test photograph cut short: its folder, and that file."""
    root = tmp_path / "colors"
    shutil.copytree(colors, root)
    broken = root / "test" / "Coral_ibis" / "1.png"
    broken.write_bytes(broken.read_bytes()[:999])
    return root, broken


BROWSER_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="session")
def chromium():
    """Debian's Chromium, driven by Playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER_FLAGS)
        yield browser
        browser.close()
