"""`ramstrans data check`, from its arguments to its exit code."""

import csv
import json
import shutil

import pytest
import yaml

from ramstrans.commands import data_check
from ramstrans.commands.configs import config_folder
from ramstrans.commands.options import Parser
from ramstrans.data.audit.findings import Finding
from ramstrans.data.datasets.cub import read_cub
from ramstrans.data.sharding.writer import write_shards
from ramstrans.data.splits import hold_out
from ramstrans.errors import ConfigError, DataError, OutputError, UsageError


@pytest.fixture
def check(monkeypatch, capsys):
    """Runs the command; its exit code and standard output, unwrapped."""
    monkeypatch.setenv("COLUMNS", "200")

    def check(*arguments):
        parser = Parser(prog="ramstrans data check")
        data_check.add_options(parser)
        given = list(map(str, arguments))
        code = data_check.run(parser.parse_args(given), given)
        return code, capsys.readouterr().out

    return check


@pytest.fixture
def copied(birds, tmp_path):
    root = tmp_path / "birds"
    shutil.copytree(birds, root)
    return root


def cells(out):
    return [[cell.strip() for cell in row.strip("│┃").split("│")] for row in out.splitlines()]


SPLITS = ["train", "9", "3", "3", "3"]


@pytest.mark.parametrize("named", [[], ["--data.name", "cub"]])
def test_a_clean_set(check, birds, named):
    code, out = check(birds, *named, "--data.val_fraction", "0.25", "--data.crop", "48")
    assert code == 0
    assert SPLITS in cells(out)
    assert ["class with few training images", "warning", "3"] in [row[:3] for row in cells(out)]


def test_the_root_as_an_option(check, birds):
    with_option = check("--data.root", birds)
    assert with_option == check(birds)
    with pytest.raises(UsageError, match=r"DATA is .* and --data\.root is .*; give one of them"):
        check(birds, "--data.root", birds)


def test_the_format_is_detected(check, colors, birds):
    assert check(colors)[0] == 0
    with pytest.raises(DataError, match="is not a table"):
        check(birds / "images.txt")
    with pytest.raises(DataError, match="does not exist"):
        check(colors / "nowhere")
    with pytest.raises(ConfigError, match=r"no --data\.root"):
        check("--data.name", "cub")


def test_without_a_root_it_is_toybirds(check, monkeypatch):
    parser = Parser()
    data_check.add_options(parser)
    assert parser.parse_args([]).data.name == "toybirds"


def test_the_splits_are_those_that_train_draws():
    parser = Parser()
    data_check.add_options(parser)
    trained = yaml.safe_load((config_folder() / "folder.yaml").read_text())["data"]
    assert parser.parse_args([]).data.val_fraction == trained["val_fraction"]


def damage(root):
    """A test image that is a training image too, one that is broken, and a box that is elsewhere."""
    paths = dict(line.split() for line in (root / "images.txt").read_text().splitlines())
    splits = dict(line.split() for line in (root / "train_test_split.txt").read_text().splitlines())
    train = next(image for image, split in splits.items() if split == "1")
    test, broken = [image for image, split in splits.items() if split == "0"][:2]
    shutil.copyfile(root / "images" / paths[train], root / "images" / paths[test])
    (root / "images" / paths[broken]).write_bytes(b"")
    boxes = dict(line.split(maxsplit=1) for line in (root / "bounding_boxes.txt").read_text().splitlines())
    boxes[train] = "100 3 5 7"
    (root / "bounding_boxes.txt").write_text("".join(f"{key} {box}\n" for key, box in boxes.items()))
    return [root / "images" / paths[image] for image in (train, test, broken)]


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_errors_are_found_and_written(check, copied, tmp_path, suffix):
    train, test, broken = damage(copied)
    target = tmp_path / "new" / f"found.{suffix}"
    code, out = check(copied, "--output", target, "--data.val_fraction", "0")
    assert code == DataError.exit_code
    rows = {row[0]: row[1:] for row in cells(out) if len(row) == 4}
    assert rows["unreadable"] == ["error", "1", broken.name]
    assert rows["duplicate across splits"] == ["error", "1", f"{train.name} = {test.name}"]
    assert rows["box outside"] == ["error", "1", train.name]
    assert f"unreadable: {broken}: empty file" in out.splitlines()
    text = target.read_text()
    written = list(csv.DictReader(text.splitlines())) if suffix == "csv" else json.loads(text)["findings"]
    assert (written[0]["kind"], written[0]["severity"]) == ("unreadable", "error")
    assert len(written) > 3


def test_any_number_of_findings_is_counted_and_a_few_are_shown(check, birds, monkeypatch, tmp_path):
    monkeypatch.setattr(data_check, "MAX_LINES", 5)
    code, out = check(birds, "--data.crop", "1000", "--output", tmp_path / "found.csv")
    assert code == 0
    assert ["tiny", "warning", "18"] in [row[:3] for row in cells(out)]
    assert sum(line.startswith("tiny: /") for line in out.splitlines()) == 5
    assert "tiny: 13 more; --output FILE.csv has them all" in out.splitlines()
    assert (tmp_path / "found.csv").read_text().count("\ntiny,") == 18


def test_an_output_that_cannot_be(check, birds, tmp_path, monkeypatch):
    monkeypatch.setattr("ramstrans.data.build.read_image_set", lambda *_: pytest.fail("nothing must be read"))
    with pytest.raises(UsageError, match=r"must end in \.json or \.csv"):
        check(birds, "--output", tmp_path / "found.txt")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        check(birds, "--output", tmp_path / "folder.csv")
    (tmp_path / "found.csv").write_text("kept")
    with pytest.raises(OutputError, match="--overwrite true"):
        check(birds, "--output", tmp_path / "found.csv")
    assert (tmp_path / "found.csv").read_text() == "kept"


def test_an_output_is_replaced_if_asked_for(check, birds, tmp_path):
    (tmp_path / "found.json").write_text("old")
    check(birds, "--output", tmp_path / "found.json", "--overwrite", "true")
    assert json.loads((tmp_path / "found.json").read_text())["counts"]["unreadable"] == 0


def test_a_clean_table_is_written_and_read(check, copied, tmp_path, capsys, caplog):
    caplog.set_level("INFO", "ramstrans")
    train, test, broken = damage(copied)
    table = tmp_path / "clean.csv"
    options = ("--data.val_fraction", "0", "--data.crop", "48")
    code, _ = check(copied, "--write", table, *options)
    assert code == DataError.exit_code
    kept = {row["path"]: row for row in csv.DictReader(table.read_text().splitlines())}
    paths = {str(path.relative_to(tmp_path)) for path in (train, test, broken)}
    assert len(kept) == 16
    assert paths & set(kept) == {str(test.relative_to(tmp_path))}  # the copy of the test split is kept
    assert f"{table}: 16 of 18 images; 2 left out, for what was found: unreadable 1, dup" in caplog.text
    assert check(table, *options)[0] == 0
    with pytest.raises(OutputError, match=r"--write .* exists"):
        check(copied, "--write", table)


def test_what_is_left_out_is_a_choice(check, copied, tmp_path):
    train, test, _ = damage(copied)
    table = tmp_path / "clean.csv"
    check(copied, "--write", table, "--leave_out", "unreadable", "box outside")
    rows = {row["path"]: row for row in csv.DictReader(table.read_text().splitlines())}
    assert len(rows) == 17
    assert rows[str(train.relative_to(tmp_path))]["x0"] == ""
    assert rows[str(test.relative_to(tmp_path))]["x0"] != ""


def test_tables_that_cannot_be_written(check, birds, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("ramstrans.data.build.read_image_set", lambda *_: pytest.fail("nothing must be read"))
    with pytest.raises(OutputError, match=r"--write .* must end in \.csv"):
        check(birds, "--write", tmp_path / "clean.parquet")
    with pytest.raises(UsageError, match="--leave_out 'blurred': give 'errors', 'unreadable'"):
        check(birds, "--write", tmp_path / "clean.csv", "--leave_out", "blurred")
    with pytest.raises(UsageError, match="'label issue' needs a trained model"):
        check(birds, "--write", tmp_path / "clean.csv", "--leave_out", "label issue")
    (tmp_path / "set.csv").touch()
    with pytest.raises(UsageError, match="is the table that is checked"):
        check(tmp_path / "set.csv", "--write", tmp_path / "set.csv", "--overwrite", "true")
    both = ("--output", tmp_path / "new.csv", "--write", tmp_path / "new.csv")
    with pytest.raises(UsageError, match=r"--write .*new\.csv is the file of --output too; give another"):
        check(birds, *both)
    with pytest.raises(UsageError, match="files of their own, which shards has not"):
        check("--data.name", "shards", "--data.root", tmp_path, "--write", tmp_path / "clean.csv")


def test_leave_out_alone_is_ignored_and_told(check, birds, caplog):
    check(birds, "--leave_out", "tiny")
    assert "--leave_out is ignored without --write" in caplog.text


def test_suspected_label_errors_are_left_out(check, trained, copied, tmp_path, monkeypatch):
    from ramstrans.evaluation import label_errors

    image = copied / "images" / (copied / "images.txt").read_text().split()[1]
    monkeypatch.setattr(
        label_errors, "find_label_issues", lambda *_, **__: [Finding("label issue", (image,), "given 'crow'")]
    )
    options = ("--model", trained.folder, "--device", "cpu", "--write", tmp_path / "clean.csv", "--leave_out")
    check(copied, *options, "label issue")
    assert image.name not in (tmp_path / "clean.csv").read_text()
    check(copied, *options, "errors", "--overwrite", "true")
    assert image.name in (tmp_path / "clean.csv").read_text()


def test_bursts_over_two_splits_are_an_error_and_groups_the_advice(check, tmp_path, caplog):
    caplog.set_level("INFO", "ramstrans")
    from PIL import ExifTags, Image

    for label, name in enumerate(("crow", "wren")):
        for index in range(6):
            exif = Image.Exif()
            exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = f"2026:05:0{index + 1} 10:00:00"
            (tmp_path / name / f"{index}").mkdir(parents=True)
            for shot in range(2):
                picture = Image.effect_noise((64, 64), 80 + 10 * label).convert("RGB")
                picture.save(tmp_path / name / f"{index}" / f"{shot}.jpg", exif=exif)
    options = ("--data.crop", "48", "--data.test_fraction", "0.4")
    code, out = check(tmp_path, *options)
    assert code == DataError.exit_code
    assert "taken together across splits" in out
    assert "--data.group_day true" in caplog.text
    code, out = check(
        tmp_path, "--data.crop", "48", "--data.test_fraction", "0.4", "--data.group_day", "true"
    )
    assert (code, "across splits" in out) == (0, False)


def test_a_model_contradicts_labels_beside_broken_files(check, trained, copied, monkeypatch):
    from ramstrans.evaluation import label_errors

    *_, broken = damage(copied)
    asked = {}

    def found(folder, config, **options):
        asked.update(options, folder=folder, config=config)
        image = copied / "images" / (copied / "images.txt").read_text().split()[1]
        return [Finding("label issue", (image,), "given 'crow' (10%), suggested 'wren' (90%)")]

    monkeypatch.setattr(label_errors, "find_label_issues", found)
    code, out = check(copied, "--model", trained.folder, "--device", "cpu", "--batch_size", "3")
    assert code == DataError.exit_code
    assert (asked["folder"], asked["config"].root, asked["unreadable"]) == (trained.folder, copied, {broken})
    assert (asked["device"], asked["batch_size"], asked["precision"]) == ("cpu", 3, None)
    assert ["label issue", "warning", "1"] in [row[:3] for row in cells(out)]
    first = next(line for line in out.splitlines() if line.startswith("label issue: "))
    assert first.endswith(": given 'crow' (10%), suggested 'wren' (90%)")
    assert not any(line.startswith("tiny") for line in out.splitlines())  # 48 pixels for an input of 24


def test_a_model_of_its_own_data(check, trained, birds):
    code, out = check(birds, "--model", trained.folder, "--device", "cpu", "--data.val_fraction", "0.25")
    assert code == 0
    assert SPLITS in cells(out)


def test_a_model_of_other_classes_is_an_error_before_files_are_read(check, trained, colors, monkeypatch):
    monkeypatch.setattr(
        "ramstrans.data.audit.images.audit_images",
        lambda *_, **__: pytest.fail("nothing must be read"),
    )
    with pytest.raises(DataError, match="not among the model's 3"):
        check(colors, "--model", trained.folder)


def test_a_damaged_shard_is_named(check, birds, tmp_path):
    root = tmp_path / "shards"
    write_shards(hold_out(read_cub(birds), 0.25, 0, "val"), root, root=birds)
    options = ("--data.crop", "48")
    code, out = check(root, *options)
    assert code == 0
    tar = next(root.glob("test-*.tar"))
    content = bytearray(tar.read_bytes())
    content[600] ^= 1  # inside the first image
    tar.write_bytes(content)
    code, out = check(root, *options)
    assert code == DataError.exit_code
    assert "damaged shard" in out
    assert tar.name in out
