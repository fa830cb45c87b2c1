import json

import pytest

from ramstrans.data.datasets.image_folder import read_image_folder
from ramstrans.data.loading.transforms import Augmentation
from ramstrans.training import loop
from ramstrans.training.config import TrainingConfig
from ramstrans.training.loop import TrainLoop
from tests.training.builders import metrics_log, tiny_loader


@pytest.fixture(scope="module")
def images(colors):
    return read_image_folder(colors)


@pytest.fixture
def run(images, tmp_path, monkeypatch):
    """Fits a model to the colours, every step logged: the result, the model and the log's rows."""
    monkeypatch.setattr(loop, "LOG_EVERY", 1)

    def run(model, *, validate_on=None, seed=0, progress=lambda *_: None, **options):
        log, accelerator = metrics_log(tmp_path)
        log.path.unlink(missing_ok=True)
        defaults = {"optimizer": "adamw", "lr": 0.003, "batch_size": 4}
        if "warmup_epochs" not in options:
            defaults["warmup_steps"] = 2
        config = TrainingConfig(**defaults | options)
        train = tiny_loader(images.of_split("train"), seed=seed, augmentation=Augmentation())
        val = None if validate_on is None else tiny_loader(images.of_split(validate_on), shuffle=False)
        result = TrainLoop(model, train, val, config, accelerator, log).run(progress)
        return result, model, [json.loads(line) for line in log.path.read_text().splitlines()]

    return run
