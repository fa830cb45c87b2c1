from pathlib import Path

import pytest

from ramstrans.errors import ConfigError
from ramstrans.evaluation.config import EvaluationConfig, EvaluationData


def test_the_folder_of_a_report(tmp_path):
    def folder(**options):
        return EvaluationConfig(Path("run"), **options).folder

    assert folder() == Path("run/evaluation-test")
    assert folder(split="val") == Path("run/evaluation-val")
    assert folder(num_scales=1) == Path("run/evaluation-test-1_scale")
    assert folder(output=Path("out")) == Path("out")


@pytest.mark.parametrize(
    ("root", "split", "expected"),
    [
        ("new/birds.v1", None, "evaluation-birds.v1"),
        ("new", "test", "evaluation-new-test"),
        ("new/test", None, "evaluation-new_test"),  # evaluation-test is that of the run's own data
        ("new/test", "val", "evaluation-new_test-val"),
        ("new/..", None, f"evaluation-{Path.cwd().name}"),
    ],
)
def test_a_report_on_other_data_does_not_overwrite_the_runs_own(root, split, expected):
    config = EvaluationConfig(Path("run"), split, data=EvaluationData(root=Path(root)))
    assert config.folder == Path("run") / expected


@pytest.mark.parametrize(("name", "expected"), [("birds", "birds"), ("test", "new_test")])
def test_a_report_on_a_table_has_its_name_without_the_suffix(name, expected, tmp_path):
    table = tmp_path / "new" / f"{name}.csv"
    table.parent.mkdir()
    table.touch()
    config = EvaluationConfig(Path("run"), data=EvaluationData(root=table))
    assert config.folder == Path("run") / f"evaluation-{expected}"


def test_options_that_are_not_allowed():
    with pytest.raises(ConfigError, match="--batch_size is 0; give 1 or more"):
        EvaluationConfig(Path("run"), batch_size=0)
