import io
import json
import tarfile
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from ramstrans.errors import DataError, OutputError
from ramstrans.inference import BatchPredictor
from ramstrans.inference.partitions import (
    Partition,
    PartitionFolder,
    partitions_of,
    summary,
    write_partition,
)
from ramstrans.inference.predictor import Predictor
from ramstrans.inference.writers import to_row
from tests.inference.builders import draw


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return [str(draw(folder / f"{i}.png", 97, 71, seed=i)) for i in range(7)]


def items_of(partitions):
    return [item for partition in partitions for item in partition.items()]


def test_paths_are_cut_into_slices(paths):
    partitions = partitions_of(paths, 3)
    assert [partition.paths for partition in partitions] == [tuple(paths[:3]), tuple(paths[3:6]), (paths[6],)]
    assert [partition.index for partition in partitions] == [0, 1, 2]
    assert [partition.name for partition in partitions][-1] == "part-000002.parquet"
    assert [Partition.from_json(partition.to_json()) for partition in partitions] == partitions


def test_tables_are_cut_by_row_groups(paths, tmp_path):
    table = pyarrow.table({"path": paths, "label": list(range(7))})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=5)
    partitions = partitions_of([tmp_path / "a.parquet", "b.jpg"], 3)
    spans = [(one.row_group, one.start, one.stop) for one in partitions]
    assert spans == [(0, 0, 3), (0, 3, 5), (1, 0, 2), (None, 0, None)]
    assert items_of(partitions) == [(path, None) for path in [*paths, "b.jpg"]]


@pytest.mark.parametrize(("size", "rows"), [(100, 250), (64, 128), (63, 130)])
def test_long_row_groups_are_read_in_parts(tmp_path, size, rows):
    names = [f"{number}.jpg" for number in range(rows)]
    parquet.write_table(pyarrow.table({"path": names}), tmp_path / "a.parquet")
    partitions = partitions_of([tmp_path / "a.parquet"], size)
    assert [len(list(one.items())) for one in partitions] == [
        *[size] * (rows // size),
        *([rows % size] if rows % size else []),
    ]
    assert [Path(path).name for path, _ in items_of(partitions)] == names


def test_paths_of_a_table_are_relative_to_it(tmp_path):
    parquet.write_table(pyarrow.table({"path": ["x/a.jpg"]}), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("label;path\nNA;007.jpg\n")
    found = items_of(partitions_of([tmp_path / "a.parquet", tmp_path / "b.csv"], 9))
    assert found == [(str(tmp_path / "x/a.jpg"), None), (str(tmp_path / "007.jpg"), None)]


@pytest.mark.parametrize("layout", ["bytes", "hugging face"])
def test_bytes_of_a_table_are_read(paths, tmp_path, layout):
    contents = [Path(path).read_bytes() for path in paths[:2]]
    names = ["a.png", "b.png"]
    if layout == "bytes":
        table = pyarrow.table({"path": names, "bytes": contents})
    else:
        pairs = [{"bytes": content, "path": name} for name, content in zip(names, contents, strict=True)]
        table = pyarrow.table({"image": pairs, "label": [0, 1]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert items_of(partitions_of([tmp_path / "a.parquet"], 9)) == list(zip(names, contents, strict=True))


def test_a_tar_is_one_partition(paths, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("._0.png", "__MACOSX/._1.png", "a/.b/c.png"):
            archive.add(paths[0], name)
        for index, path in enumerate(paths[:3]):
            archive.add(path, f"{index}.png")
            label = tarfile.TarInfo(f"{index}.cls")
            label.size = 1
            archive.addfile(label, io.BytesIO(b"0"))
    (partition,) = partitions_of([tmp_path / "a.tar"], 2)
    assert list(partition.items()) == [(f"{tmp_path}/a.tar/{index}.png", None) for index in range(3)]


def test_what_is_no_table_of_photographs_is_an_error(tmp_path):
    parquet.write_table(pyarrow.table({"label": [1], "url": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a.parquet has the columns label, url; a table of photographs"):
        partitions_of([tmp_path / "a.parquet"], 9)
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"b.parquet cannot be read as Parquet"):
        partitions_of([tmp_path / "b.parquet"], 9)
    (tmp_path / "c.csv").write_text("file\na.jpg\n")
    with pytest.raises(DataError, match=r"c.csv has no column 'path'; it has 'file'"):
        partitions_of([tmp_path / "c.csv"], 9)


def test_rows_are_those_of_the_predictor(run, paths, tmp_path):
    names = [*paths[:4], str(tmp_path / "missing.png"), *paths[4:]]
    predictor = BatchPredictor(run, top_k=2, batch_size=2, device="cpu")
    partitions = partitions_of(names, 4)
    written = [write_partition(partition, predictor, tmp_path / "out") for partition in partitions]
    expected = [to_row(one, 2) for one in Predictor.load(run, "cpu")(names, top_k=2, batch_size=2)]
    assert parquet.read_table(tmp_path / "out").to_pylist() == expected
    assert [tuple(entry) for entry in written] == [(0, 4, 0), (1, 4, 1)]
    assert summary(written) == "8 images in 2 partitions, 1 of them unreadable"
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [one.name for one in partitions]


def test_a_broken_tar_is_a_row(run, tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x" * 999)
    (partition,) = partitions_of([tmp_path / "a.tar"], 9)
    assert write_partition(partition, BatchPredictor(run, device="cpu"), tmp_path / "out") == (0, 1, 1)
    (row,) = parquet.read_table(tmp_path / "out").to_pylist()
    assert row["path"] == str(tmp_path / "a.tar")
    assert "is not a complete, uncompressed tar" in row["error"]


SETTINGS = {"top_k": 2, "model": "abc"}


def test_a_folder_goes_on_with_what_is_missing(run, paths, tmp_path):
    partitions, root = partitions_of(paths, 2), tmp_path / "out"
    predictor = BatchPredictor(run, device="cpu")
    folder = PartitionFolder(root, SETTINGS, partitions, overwrite=False)
    assert folder.written() == []
    write_partition(partitions[2], predictor, root)
    (root / ".part-000001.parquet.abc.tmp").write_bytes(b"half")
    again = PartitionFolder(root, SETTINGS, partitions, overwrite=False)
    assert again.written() == [(2, 2, 0)]
    assert not list(root.glob(".part*"))
    with_overwrite = PartitionFolder(root, SETTINGS, partitions, overwrite=True)  # the same command goes on
    assert with_overwrite.written() == [(2, 2, 0)]
    assert PartitionFolder(root, SETTINGS | {"top_k": 3}, partitions, overwrite=True).written() == []
    with_overwrite = PartitionFolder(root, SETTINGS, partitions, overwrite=True)
    write_partition(partitions[2], predictor, root)
    again.finish(again.written())
    assert json.loads((root / "_SUCCESS").read_text()) == {"num_rows": 2, "num_unreadable": 0}
    with pytest.raises(OutputError, match=r"out is finished; give another folder, or --overwrite true"):
        PartitionFolder(root, SETTINGS, partitions, overwrite=False)
    assert PartitionFolder(root, SETTINGS, partitions, overwrite=True).written() == []


def test_what_others_put_into_the_folder_stays(paths, tmp_path):
    partitions, root = partitions_of(paths, 2), tmp_path / "out"
    PartitionFolder(root, SETTINGS, partitions, overwrite=False).finish([])
    own = [root / "part-000007.parquet", root / ".part-000001.parquet.abc.tmp"]
    mine = [root / "notes.ipynb", root / "sub" / "part-000000.parquet"]
    mine[1].parent.mkdir()
    for file in (*own, *mine):
        file.touch()
    PartitionFolder(root, SETTINGS | {"top_k": 3}, partitions, overwrite=True)
    assert [file.exists() for file in (*own, *mine)] == [False, False, True, True]


def test_a_folder_of_another_command_is_not_touched(paths, tmp_path):
    partitions, root = partitions_of(paths, 2), tmp_path / "out"
    PartitionFolder(root, SETTINGS, partitions, overwrite=False)
    with pytest.raises(OutputError, match=r"holds rows of another command \(top_k differs\)"):
        PartitionFolder(root, SETTINGS | {"top_k": 3}, partitions, overwrite=False)
    PartitionFolder(tmp_path / "priors", SETTINGS | {"priors": "c4"}, partitions, overwrite=False)
    with pytest.raises(OutputError, match=r"holds rows of another command \(priors differs\)"):
        PartitionFolder(tmp_path / "priors", SETTINGS, partitions, overwrite=False)
    with pytest.raises(OutputError, match=r"holds rows of another command \(inputs differs\)"):
        PartitionFolder(root, SETTINGS, partitions_of(paths[::-1], 2), overwrite=False)
    for overwrite in (False, True):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "notes.txt").write_text("mine")
        with pytest.raises(OutputError, match=r"mine is not a folder of predictions; give another"):
            PartitionFolder(tmp_path / "mine", SETTINGS, partitions, overwrite=overwrite)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    with pytest.raises(OutputError, match=r"notes.txt is not a folder of predictions"):
        PartitionFolder(tmp_path / "mine" / "notes.txt", SETTINGS, partitions, overwrite=True)
