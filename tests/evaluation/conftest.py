import pytest

from ramstrans.evaluation.config import EvaluationConfig, EvaluationData
from ramstrans.evaluation.evaluate import evaluate_run


@pytest.fixture
def evaluate(trained, tmp_path, no_pictures):
    """Evaluates a saved model into `tmp_path / "out"`."""

    def evaluate(folder=trained.folder, split=None, *, early_exit=None, **data):
        options = {"output": tmp_path / "out", "batch_size": 4, "device": "cpu", "early_exit": early_exit}
        config = EvaluationConfig(folder, split, data=EvaluationData(**data), **options)
        return evaluate_run(config, command="ramstrans evaluate")

    return evaluate
