import pytest

from ramstrans.commands import data_shard
from ramstrans.commands.options import Parser
from ramstrans.data.build import build_image_set
from ramstrans.data.config import DataConfig
from ramstrans.data.sharding.manifest import read_manifest, read_shards
from ramstrans.errors import DataError, OutputError, UsageError
from tests.data.builders import noise_set


def run(*arguments):
    parser = Parser(prog="ramstrans data shard")
    data_shard.add_options(parser)
    return data_shard.run(parser.parse_args(list(map(str, arguments))), [])


def test_a_data_set_is_read_as_training_would_and_written(birds, tmp_path, capsys):
    output = tmp_path / "shards"
    assert run(birds, output, "--data.val_fraction", 0.25, "--max_images", 3) == 0
    assert capsys.readouterr().out == f"{output}\n"
    images = build_image_set(DataConfig("cub", birds, val_fraction=0.25))
    assert [record[1:] for record in read_shards(output).records] == [record[1:] for record in images.records]
    assert [shard.num_images for shard in read_manifest(output).shards] == [3, 3, 3, 3, 3, 3]


def test_the_format_may_be_given(colors, tmp_path):
    assert run(colors, tmp_path / "shards", "--data.name", "folder", "--max_bytes", 1) == 0
    assert all(shard.num_images == 1 for shard in read_manifest(tmp_path / "shards").shards)


def test_an_unreadable_file_stops_it_or_is_left_out(tmp_path, caplog):
    for split in ("train", "test"):
        for name in ("crow", "wren"):
            noise_set(tmp_path / "set" / split / name, 3)
    broken = tmp_path / "set/train/wren/bird 1.JPG"
    broken.write_bytes(broken.read_bytes()[:999])
    arguments = (tmp_path / "set", tmp_path / "shards", "--data.val_fraction", 0)
    with pytest.raises(DataError, match=r"bird 1\.JPG: truncated file"):
        run(*arguments)
    assert not (tmp_path / "shards").exists()
    assert run(*arguments, "--data.on_unreadable", "skip") == 0
    assert f"left out: {broken}" in caplog.text
    assert len(read_shards(tmp_path / "shards").records) == 11


def test_an_output_that_is_not_empty_is_refused_at_once(birds, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "ramstrans.data.build.build_image_set", lambda *_: pytest.fail("nothing must be read")
    )
    (tmp_path / "mine.txt").touch()
    with pytest.raises(OutputError, match="is not empty; give a new folder"):
        run(birds, tmp_path)


@pytest.mark.parametrize(
    "options",
    [("--max_images", 0), ("--data.crop", 3), ("--data.root", "x"), ("--seed", -1), ("--data.name", "x")],
)
def test_wrong_options(birds, tmp_path, options):
    with pytest.raises(UsageError):
        run(birds, tmp_path / "shards", *options)
