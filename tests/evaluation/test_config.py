from pathlib import Path

import pytest

from ramstrans.errors import ConfigError
from ramstrans.evaluation.config import EvaluationConfig, EvaluationData


def test_the_folder_of_a_report(tmp_path):
    def folder(**options):
        return EvaluationConfig(Path("run"), **options).folder

    assert folder() == Path("run/evaluation-test")
    assert folder(data=EvaluationData(root=Path("new/birds.csv"))) == Path("run/evaluation-birds")
    assert folder(data=EvaluationData(root=Path("new")), split="val") == Path("run/evaluation-val")
    assert folder(output=Path("out")) == Path("out")


def test_options_that_are_not_allowed():
    with pytest.raises(ConfigError, match="--batch_size is 0; give 1 or more"):
        EvaluationConfig(Path("run"), batch_size=0)
