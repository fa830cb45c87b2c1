"""How every command takes its arguments: the data set, config files, errors in words, the short help."""

import argparse
import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml

from ramstrans.cli import COMMANDS, build_parser, main
from ramstrans.commands import data, train
from ramstrans.commands.data import COMMANDS as DATA_COMMANDS
from ramstrans.commands.words import options_of
from tests.processes import ENVIRONMENT

WITH_DATA = {
    "train": ("train", "{}"),
    "plan": ("plan", "{}"),
    "bench": ("bench", "{}"),
    "calibrate": ("calibrate", "RUN", "{}"),
    "evaluate": ("evaluate", "RUN", "{}"),
    "data check": ("data", "check", "{}"),
    "data shard": ("data", "shard", "{}", "OUT"),
}


def parse(*arguments):
    """The options of a command, as parsed."""
    options = build_parser().parse_args([str(argument) for argument in arguments])
    while "subcommand" in options:
        options = options[options.subcommand]
    return options


@pytest.mark.parametrize("name", WITH_DATA)
def test_every_command_takes_its_data_set_alike(name, colors, fails):
    words = [word.format(colors) for word in WITH_DATA[name]]
    rest = [word for word in words if word != str(colors)]
    by_position, by_option = parse(*words), parse(*rest, "--data.root", colors)
    assert by_position == by_option
    assert str(by_position.data.root) == str(colors)
    assert by_position.data.name == (None if "RUN" in words else "folder")  # detected beside its run
    assert parse(*words, "--data.name", "table").data.name == "table"
    line = fails(2, *words, "--data.root", colors)
    assert f"DATA is {colors} and --data.root is {colors}; give one of them" in line
    missing = [word.format(colors / "nowhere") for word in WITH_DATA[name]]
    assert "nowhere does not exist; give the folder or table" in fails(3, *missing)


def test_every_command_with_a_data_set_is_here():
    parser = build_parser()
    commands = dict(parser._subparsers._group_actions[0].choices)
    commands |= {
        f"data {name}": sub for name, sub in commands["data"]._subparsers._group_actions[0].choices.items()
    }
    takes = {name for name, sub in commands.items() if "--data.root" in options_of(sub)}
    assert takes == set(WITH_DATA)


def test_the_data_set_may_stand_anywhere(colors):
    for arguments in (
        ["--seed", 3, colors],
        [colors, "--seed", 3],
        ["--seed=3", "--device", "cpu", "--", colors],
    ):
        options = parse("train", *arguments)
        assert (str(options.data.root), options.seed) == (str(colors), 3)
    options = parse("evaluate", "--split", "val", "RUN", "--device", "cpu", colors)
    assert (str(options.run), options.split, str(options.data.root)) == ("RUN", "val", str(colors))


@pytest.mark.parametrize("command", ["train", "plan"])
def test_a_config_file_never_resets_the_command_line(command, tmp_path):
    for name, values in {"a": {"seed": 1, "device": "cpu"}, "b": {"seed": 2}}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
    config = ["--config", tmp_path / "a.yaml", "--config", tmp_path / "b.yaml"]
    for arguments in (
        [*config, "--seed", 3],
        ["--seed", 3, *config],
        [*config[:2], "--seed", 3, *config[2:]],
    ):
        assert parse(command, *arguments).seed == 3
    assert (parse(command, *config).seed, parse(command, *config).device) == (2, "cpu")


@pytest.mark.parametrize("text", ["method: plain", "model.method: plain", "model: {method: plain}"])
def test_a_config_file_names_an_option_as_the_command_line_does(text, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert parse("train", "--config", path).model.method == "plain"


def test_the_format_of_a_config_file_counts_more_than_the_detected_one(colors, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("data: {name: shards}")
    assert parse("train", colors, "--config", path).data.name == "shards"
    assert parse("train", colors, "--config", path, "--data.name", "table").data.name == "table"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["{}"],
        ["{}", "--training.epochs", 3, "--model.num_scales", 1],
        ["--config", "cub50_deit_tiny_full", "{}"],
    ],
)
def test_plan_plans_the_run_that_train_makes(arguments, colors):
    words = [str(word).format(colors) for word in arguments]
    parser = build_parser()
    runs = []
    for command in ("train", "plan"):
        options = parser.instantiate(parser.parse_args([command, *words]))[command]
        runs.append(train.run_config(options))
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("make", "backbone"), [("colors", "deit_tiny_patch16_224"), ("birds", "vit_tiny_patch16_224")]
)
def test_the_recipe_follows_from_the_data_set(make, backbone, request):
    """Folders of photographs start from DeiT-Tiny, drawn birds from the recipe for them."""
    assert parse("train", request.getfixturevalue(make)).model.backbone == backbone


def test_weights_in_a_folder_of_the_hub_bring_no_model(tmp_path, colors):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    (tmp_path / "model.safetensors").touch()
    plain = parse("train", colors).model.backbone
    for weights in (tmp_path, tmp_path / "model.safetensors"):
        assert parse("train", colors, "--model.weights", weights).model.backbone == plain


def test_a_run_gets_the_recipe_of_its_backbone(colors, config_of, capsys):
    """Less than what stands on the command line, more than the config for folders; the same for `plan`."""
    words = [colors, "--model.backbone", "vit_base_patch16_224.mae", "--training.lr", "0.003", "--seed=1"]
    config = config_of(*words)
    training = config.training
    assert (training.lr, training.layer_decay, training.batch_size) == (0.003, 0.65, 32)
    assert (training.epochs, config.data.val_fraction) == (None, None)  # by the number of images
    assert "as given: training.lr" in capsys.readouterr().err
    small = config_of(*words[:3], "--training.batch_size", 8)
    assert small.training.lr == 1.8e-4  # 2e-3 * sqrt(8 / 1024)


@pytest.mark.usefixtures("bf16_units")
def test_deit_tiny_has_the_recipe_of_the_config_for_folders(colors, config_of):
    """That of docs/results.md; the config has the paper's regions."""
    auto, config = config_of(colors), config_of(colors, "--config", "folder")
    regions = {"class_tokens": "shared", "component": "soft", "saliency_layers": 6}
    assert auto == replace(config, model=replace(config.model, **regions))


def test_the_recipe_has_no_regions_for_peers(colors, config_of):
    """Nor a warning that options of regions are ignored, which would be an error here."""
    for method in ("plain", "transfg", "ffvt", "glsim"):
        assert config_of(colors, "--method", method).model.component == "count"
    assert config_of(colors, "--method", "calcrop").model.component == "soft"


def test_the_recipe_of_the_paper_is_its_config(birds, colors, config_of):
    for root in (birds, colors):
        by_config = config_of(root, "--config", "cub200_vitb16")
        assert config_of(root, "--recipe", "paper") == by_config
        assert (by_config.training.lr, by_config.training.max_steps) == (0.03, 10000)
        assert by_config.model.image_size == 448


def test_a_config_has_its_own_recipe_unless_asked(colors, tiny, config_of):
    assert config_of(colors, "--recipe", "none") == config_of(colors, "--config", write_empty(tiny))
    config = config_of("--config", tiny)
    assert config.training.layer_decay == 1
    asked = config_of("--config", tiny, "--recipe", "auto", "--model.weights", "null")
    assert asked.model.backbone_options == config.model.backbone_options
    assert asked.model.image_size == config.model.image_size
    assert asked.training.max_steps == config.training.max_steps
    assert asked.training.label_smoothing == 0.1


def write_empty(tiny):
    path = tiny.parent / "empty.yaml"
    path.write_text("{}")
    return path


def test_drawn_birds_with_another_backbone(config_of, capsys):
    plain = config_of()
    assert (plain.training.optimizer, plain.training.lr, plain.model.image_size) == ("muon", 0.002, 64)
    assert "recipe auto" not in capsys.readouterr().err
    other = config_of("--model.backbone", "resnet18")
    assert (other.data.name, other.model.image_size, other.model.backbone_options) == ("toybirds", 224, {})
    assert other.training.lr == 0.001


def test_a_resumed_run_keeps_its_recipe(trained, fails):
    assert "--resume and --recipe do not go together" in fails(
        2, "train", "--resume", trained.folder, "--recipe", "auto"
    )
    assert "--recipe is 'best'; give auto, paper, none" in fails(2, "train", "--recipe", "best")


def test_weights_of_a_run_bring_its_model(trained, colors):
    for weights in (trained.folder, trained.folder / "model.safetensors"):
        model = parse("train", colors, "--model.weights", weights, "--model.num_scales", 3).model
        saved = json.loads((trained.folder / "config.json").read_text())["model"]
        assert (model.backbone, model.backbone_options) == (saved["backbone"], saved["backbone_options"])
        assert (model.image_size, model.num_scales, model.num_classes) == (24, 3, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--training.lr", "fast"], "--training.lr is 'fast'; give a number"),
        (["train", "--lr", "1"], "--lr is not an option of `ramstrans train`; did you mean --training.lr?"),
        (["train", "--precision", "bf16"], "did you mean --training.precision?"),
        (
            ["train", "--data.cache=disc"],
            "--data.cache is 'disc'; give none, memory or disk; did you",
        ),
        (["train", "--model.image_size", "big"], "give a whole number or a list of two, e.g. [448, 336]"),
        (["train", "--dry_run", "maybe"], "--dry_run is 'maybe'; give true or false"),
        (["train", "--overwrite"], "--overwrite needs a value; give true or false"),
        (["predict", "run", "a.jpg", "--top_k", "0"], "--top_k is '0'; give a whole number, 1 or more"),
        (["predict", "run"], "`ramstrans predict` needs INPUTS; see `ramstrans predict --help`"),
        (["evaluate", "run", "--early_exit", "x"], "--early_exit is 'x'; give a number, auto or null"),
        (["pedict"], "the command is 'pedict'; give plan, train"),
        (["pedict"], "did you mean predict?"),
        (["data"], "`ramstrans data` needs a command; `ramstrans data --help` lists them"),
    ],
)
def test_errors_are_in_words(arguments, said, fails):
    line = fails(2, *arguments)
    assert said in line
    for leak in ("typing.", "<class", "Literal", "Union", "NoneType", "[options]", "Parser key"):
        assert leak not in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "training: {ephocs: 3}",
            "has 'training.ephocs', which `ramstrans train` does not know; did",
        ),
        ("trainig: {lr: 0.1}", "trainig"),
        ("training: {rate: 0.1}", "training.rate"),
        ("training: {lr: 0.1", "the config file is not YAML"),
        ("- 1", "the config file holds '- 1'; give options"),
        ("method: ffvt\nmodel: {dropout: 0}", "beside 'model'; put it inside: `model: {method: ...}`"),
        ('{"method": "ffvt", "model": {"dropout": 0}}', "'method' beside 'model'"),
        (
            "model.backbone_options.a.x: 1\nmodel: {backbone_options: {}}",
            "put it inside: `model: {backbone_options: {a: {x: ...}}}`",
        ),
        ("model: {backbone_options.x: 3, backbone_options: {y: 3}}", "beside 'backbone_options'; put it"),
        ("method: plain\nmodel.method: ffvt", "has 'model.method' twice, once as 'method'; give it once"),
        ("model: {dropout: 0}\nmodel: {num_scales: 3}", "'model' comes twice, the first time in line 1"),
        ("model.method: ffvt\nmodel: {dropout: 0}", "'model.method' beside 'model'; put it inside"),
        ("model: {dropout: 0}\nmodel.method: ffvt", "'model.method' beside 'model'; put it inside"),
    ],
)
def test_errors_of_config_files_are_in_words(text, said, fails, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    assert said in fails(2, "train", "--config", path)


@pytest.mark.filterwarnings("default")
def test_an_option_without_effect_is_a_line_without_code(capsys):
    assert main(["train", "--training.lora_rank", "4", "--data.name", "cub"]) == 2
    printed = capsys.readouterr().err.splitlines()
    assert printed[0] == "warning: training.lora_rank is ignored without training.finetune lora"


@pytest.mark.parametrize("command", ["train", "plan"])
def test_help_shows_ten_options_and_help_all_the_rest(command, capsys):
    texts = []
    for words in (["--help"], ["--help", "all"]):
        with pytest.raises(SystemExit):
            main([command, *words])
        texts.append(capsys.readouterr().out)
    short = [word for word in texts[0].split() if word.startswith("--") and word != "--data.root."]
    assert sum(line.startswith("  --") for line in texts[0].splitlines()) == 10
    assert len(texts[0].splitlines()) < 50
    assert "--model.zoom_margin" in texts[1]
    assert "--model.zoom_margin" not in short
    assert "[DATA]" in texts[0]
    assert "[DATA]" in texts[1]


COMMAND_LINES = [[name] for name in COMMANDS if name != "data"] + [["data", name] for name in DATA_COMMANDS]


@pytest.mark.parametrize("words", COMMAND_LINES, ids=" ".join)
def test_help_all_names_every_option_in_plain_words(words, capsys):
    with pytest.raises(SystemExit):
        main([*words, "--help", "all"])
    text = capsys.readouterr().out
    parser = build_parser()
    for word in words:
        parser = parser._subparsers._group_actions[0].choices[word]
    for name in options_of(parser):
        hidden = parser._option_string_actions[name].help == argparse.SUPPRESS
        assert bool(re.search(rf"^  .*{re.escape(name)}(\s|,|$)", text, re.MULTILINE)) == (not hidden), name
    assert not re.search(r"SUPPRESS|<class|Optional|Literal|Union|NoneType|PosixPath|\btuple\b|\x08", text)
    assert max(map(len, text.splitlines())) <= 100


def test_help_says_what_is_allowed_and_the_default(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "--help", "all"])
    text = capsys.readouterr().out
    assert "  --top_k                 Classes per image. [a whole number, 1 or more; default: 5]\n" in text
    assert "  --overwrite             Replace that file. [true or false; default: false]\n" in text
    assert "else csv. [csv, jsonl or parquet]\n" in text


WRONG = [
    ["train", "nowhere"],
    ["train", "--lr", "1"],
    ["train", "--training.lr", "0"],
    ["train", "--config", "nowhere.yaml"],
    ["train", "--resume", "nowhere"],
    ["train", "--data.name", "cub"],
    ["plan", "--memory", "12"],
    ["plan", "nowhere"],
    ["calibrate", "nowhere"],
    ["calibrate", "nowhere", "--coverage", "2"],
    ["evaluate", "nowhere"],
    ["predict", "nowhere", "a.jpg"],
    ["predict", "nowhere", "a.jpg", "--output", "{}"],
    ["explain", "nowhere", "a.jpg"],
    ["explain", "nowhere", "a.jpg", "--output", "why.gif"],
    ["explain", "nowhere", "a.jpg", "--against", "wren"],
    ["embed", "nowhere"],
    ["embed", "nowhere", "--index", "true"],
    ["similar", "nowhere", "a.jpg"],
    ["similar", "nowhere", "a.jpg", "--picture", "alike.gif"],
    ["add_class", "nowhere", "wren", "a.jpg"],
    ["add_class", "nowhere", "wren", "a.jpg", "--output", "out"],
    ["push", "nowhere", "ann/wrens"],
    ["data", "check", "nowhere"],
    ["data", "check", "{}", "--output", "{}"],
    ["data", "shard", "nowhere", "out"],
    ["data", "make", "fish", "out"],
    ["data", "download", "fish", "out"],
    ["bench"],
    ["bench", "--models", "a", "--run", "b"],
    ["export", "nowhere", "out"],
    ["export", "nowhere", "out", "--format", "onx"],
    ["serve", "nowhere"],
    ["serve", "nowhere", "--max_images", "2", "--max_queue", "1"],
    ["compare", "nowhere.yaml"],
]


def test_no_command_imports_torch_before_its_options_are_good(colors, tmp_path):
    """All in one process: whichever imports torch first is named. The command line itself needs no NumPy."""
    code = (
        "import json, sys\nfrom ramstrans.cli import build_parser, main\nbuild_parser()\n"
        "assert not {'numpy', 'pandas'} & sys.modules.keys()\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    assert main(words) in (1, 2, 3), words\n"
        "    assert 'torch' not in sys.modules, words\n"
    )
    words = [[word.format(colors) for word in arguments] for arguments in WRONG]
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(words)],
        capture_output=True, text=True, check=False, timeout=600, env=ENVIRONMENT, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("ramstrans: ") == len(WRONG)


def test_every_command_is_tried_with_wrong_options():
    assert {arguments[0] for arguments in WRONG} == set(COMMANDS) - {"doctor"}
    assert {arguments[1] for arguments in WRONG if arguments[0] == "data"} == set(data.COMMANDS)


@pytest.mark.parametrize("command", ["train", "plan"])
def test_the_method_has_a_short_name(command, colors, fails, capsys):
    for words in (("--method", "ffvt"), ("--method=ffvt",), ("--model.method", "ffvt")):
        assert parse(command, colors, *words).model.method == "ffvt"
    assert parse(command, colors).model.method == "rams"
    line = fails(2, command, colors, "--method", "transfq")
    assert "'transfq'; give plain, rams, transfg, ffvt, glsim or calcrop" in line
