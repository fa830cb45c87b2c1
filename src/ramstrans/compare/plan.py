"""The plan of a comparison: a YAML file of data sets, methods, options and seeds, and the runs of it."""

import difflib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ramstrans.errors import ConfigError
from ramstrans.plain import to_plain
from ramstrans.yaml_keys import UniqueKeys

KEYS = ("data", "methods", "options", "seeds", "baseline", "regions")

VARIANTS = "variants"
"""Key of `options` whose entries are options that every method is run with."""

SECTIONS = ("data", "model", "training")
"""Options that may be written as `training: {epochs: 3}` instead of `training.epochs: 3`."""

OF = "of"
"""Key of a method that is another one evaluated in another way, without training again."""

OF_EVALUATE = ("num_scales", "early_exit", "fusion", "precision")
"""Options of `evaluate` that such a method may have."""

NAME = re.compile(r"\w[\w.+=,-]*")

BETWEEN = "__"
"""Stands between the parts of a run's name."""

REGIONS = "regions"
"""Key of a plan, and the end of the name of what judges regions."""

OF_COMPARE = {
    "seed": "the key `seeds` gives them",
    "resume": "compare resumes by itself",
    "dry_run": "compare checks all options before the first run",
    **dict.fromkeys(("output", "overwrite"), "every run has its folder in --output"),
    **dict.fromkeys(("print_config", "help"), "it does not train"),
    **dict.fromkeys(
        ("data.multi_label", "data.label_columns", "data.label_separator"),
        "compare tests top-1, which images of several labels have not",
    ),
}
"""Options of `train` that a plan cannot have, and why."""

OF_SPLITS = (
    *("name", "root", "path_column", "label_column", "split_column", "image_folder", "class_level"),
    *("aircraft_level", "train_folder", "test_fraction", "split_seed", "group_column", "group_level"),
    *("group_day", "folds", "fold", "on_unreadable", "on_unlabelled", "hold_out_classes"),
)
"""Options of the data that decide which images are tested; they are the same for all methods."""


@dataclass(frozen=True)
class Run:
    """One run of a plan.

    Attributes:
        method: Name of the method.
        variant: Name among the variants of the options; None if the plan has none.
        data: Name of the data set.
        seed: Seed of the run.
        options: Options of `ramstrans train` without `--`, e.g. `training.epochs`, and their values; with
            `of` those of `ramstrans evaluate`.
        of: The run that is evaluated, where nothing is trained.
        judges_regions: Whether it is not compared, but judges the regions of `of`.
    """

    method: str
    variant: str | None
    data: str
    seed: int
    options: Mapping[str, Any]
    of: "Run | None" = None
    judges_regions: bool = False

    @property
    def contender(self) -> str:
        """What is compared: the method, and the variant of the options if there are several."""
        return self.method if self.variant is None else f"{self.method}/{self.variant}"

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        parts = (self.method, self.variant, self.data, f"seed{self.seed}", REGIONS * self.judges_regions)
        return BETWEEN.join(part for part in parts if part)

    @property
    def words(self) -> list[str]:
        """The options of `ramstrans train`, without the output, or of `ramstrans evaluate`."""
        words = [as_word(name, value) for name, value in self.options.items()]
        return words if self.of else [*words, f"--seed={self.seed}"]


@dataclass(frozen=True)
class Plan:
    """Methods x variants of the options x data sets x seeds.

    Attributes:
        runs: All runs, seed by seed, so that an unfinished comparison has a bit of everything.
        baseline: What the others are tested against, among the `contenders`.
        values: The plan as it was written, in plain values.
        regions: On how many images, or `all`, regions are judged; None: they are not.
    """

    runs: tuple[Run, ...]
    baseline: str
    values: Mapping[str, Any]
    regions: int | str | None = None

    @property
    def region_runs(self) -> tuple[Run, ...]:
        """What judges the regions of each trained run, if the plan wants that."""
        options = {"regions": self.regions}
        return tuple(
            replace(run, options=options, of=run, judges_regions=True)
            for run in self.runs
            if self.regions is not None and run.of is None
        )

    @property
    def contenders(self) -> tuple[str, ...]:
        """What is compared, in the order of the plan."""
        return tuple(dict.fromkeys(run.contender for run in self.runs))

    @property
    def data(self) -> tuple[str, ...]:
        """Names of the data sets, in the order of the plan."""
        return tuple(dict.fromkeys(run.data for run in self.runs))

    def runs_of(self, data: str, contender: str) -> list[Run]:
        """The runs that differ in their seed alone."""
        return [run for run in self.runs if (run.data, run.contender) == (data, contender)]


def as_word(name: str, value: object) -> str:
    """An option as one argument of a command line.

    >>> as_word("training.lr", "2e-4"), as_word("data.crop", [7, 5]), as_word("model.weights", None)
    ('--training.lr=2e-4', '--data.crop=[7, 5]', '--model.weights=null')
    """
    return f"--{name}={value if isinstance(value, str) else json.dumps(value)}"


def read_plan(path: Path) -> Plan:
    """Read a plan from a YAML file.

    Raises:
        ConfigError: It cannot be read, or is not a plan; the message says where.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), UniqueKeys)
    except OSError as error:
        raise ConfigError(f"the plan {path} cannot be read ({error.strerror}); give a YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the plan {path} is not UTF-8; save it as such") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"the plan {path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return build_plan(content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def build_plan(content: object) -> Plan:
    """Build a plan from the values of its file; options are checked for what does not go into a plan.

    Raises:
        ConfigError: It is not a plan; the message says where.
    """
    values = _mapping("the plan", content)
    for key in values:
        if key not in KEYS:
            raise ConfigError(
                f"there is no key '{key}' in a plan{_nearest(key, KEYS)}; it has {', '.join(KEYS)}"
            )
    data = {name: _data_options(name, entry) for name, entry in _named("data", values).items()}
    entries = _named("methods", values)
    derived = {
        name: _evaluated(name, entry, entries)
        for name, entry in entries.items()
        if isinstance(entry, Mapping) and OF in entry
    }
    methods = {
        name: options_of(f"methods.{name}", entry) for name, entry in entries.items() if name not in derived
    }
    common = dict(_mapping("options", values.get("options", {})))
    variants: dict[str | None, dict[str, Any]] = {None: {}}
    if VARIANTS in common:
        named = _named(VARIANTS, common, "options.")
        variants = {name: options_of(f"options.variants.{name}", entry) for name, entry in named.items()}
        del common[VARIANTS]
    for where, options in [
        *((f"methods.{name}", options) for name, options in methods.items()),
        *((f"options.variants.{name}", options) for name, options in variants.items()),
    ]:
        _check_splits(where, options)
    shared = options_of("options", common)
    runs = []
    for seed, name, variant in itertools.product(_seeds(values), data, variants):
        trained = {
            method: Run(
                method, variant, name, seed, shared | _joined(method, variant, name, data, variants, methods)
            )
            for method in methods
        }
        for method in entries:
            if method in trained:
                runs.append(trained[method])
            else:
                of, options = derived[method]
                runs.append(Run(method, variant, name, seed, options, trained[of]))
    for name, count in Counter(run.name for run in runs).items():
        if count > 1:
            raise ConfigError(f"two runs would be called {name}; give methods or data other names")
    contenders = list(dict.fromkeys(run.contender for run in runs))
    baseline = str(values.get("baseline", contenders[0]))
    if baseline not in contenders:
        raise ConfigError(f"baseline is '{baseline}'; give one of {', '.join(contenders)}")
    return Plan(tuple(runs), baseline, to_plain(values, "the plan"), _regions(values))


def options_of(where: str, entry: object) -> dict[str, Any]:
    """Options of `train` by their names on the command line, from a mapping that may have sections.

    >>> options_of("options", {"training": {"epochs": 3}, "training.lr": 0.1, "recipe": "none"})
    {'training.epochs': 3, 'training.lr': 0.1, 'recipe': 'none'}

    Raises:
        ConfigError: An option is given twice, or does not go into a plan.
    """
    found: dict[str, Any] = {}
    for name, value in _flat(_mapping(where, entry)):
        if name in found:
            raise ConfigError(f"{where} has {name} twice; give it once")
        if name in OF_COMPARE:
            raise ConfigError(f"{where} has {name}, which a plan cannot have: {OF_COMPARE[name]}")
        found[name] = to_plain(value, f"{where}.{name}")
    return found


def _evaluated(name: str, entry: Mapping[str, Any], methods: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The method that another one evaluates, and the options of `evaluate` that it does so with."""
    where, options = f"methods.{name}", {str(key): value for key, value in entry.items()}
    of = options.pop(OF)
    trained = [one for one, other in methods.items() if not (isinstance(other, Mapping) and OF in other)]
    if of not in trained:
        raise ConfigError(
            f"{where}.of is {json.dumps(of, default=str)}; give a method that is trained: "
            f"{', '.join(trained)}"
        )
    for option in options:
        if option not in OF_EVALUATE:
            raise ConfigError(
                f"{where} has {option}{_nearest(option, OF_EVALUATE)}; with `of` nothing is trained: give "
                f"options of evaluate, {', '.join(OF_EVALUATE)}"
            )
    if not options:
        raise ConfigError(f"{where} is the same as {of}; give one of {', '.join(OF_EVALUATE)}")
    return of, to_plain(options, where)


def _regions(values: Mapping[str, Any]) -> int | str | None:
    """On how many images regions are judged."""
    regions = values.get(REGIONS)
    is_count = isinstance(regions, int) and not isinstance(regions, bool) and regions > 0
    if regions is not None and regions != "all" and not is_count:
        raise ConfigError(
            f"regions is {json.dumps(regions, default=str)}; give a number of test images to judge regions "
            "on, or all"
        )
    return regions


def _flat(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in options.items():
        if name in SECTIONS and isinstance(value, Mapping):
            yield from ((f"{name}.{key}", entry) for key, entry in value.items())
        else:
            yield name, value


def _data_options(name: str, entry: object) -> dict[str, Any]:
    """Options of one data set, from a path or from options without `data.` before them."""
    if isinstance(entry, str):
        entry = {"root": entry}
    where = f"data.{name}"
    options = _mapping(where, entry)
    for key in options:
        if "." in key:
            raise ConfigError(
                f"{where} has {key}; give options of the data without their section: {{root: ...}}"
            )
    folds = options.get("folds")
    if folds is not None and options.get("fold") is None:
        raise ConfigError(
            f"{where} has folds {folds}, which makes several runs of one; give one fold of them"
        )
    return options_of(where, {"data": options})


def _joined(
    method: str,
    variant: str | None,
    name: str,
    data: Mapping[str, dict[str, Any]],
    variants: Mapping[str | None, dict[str, Any]],
    methods: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """The options of a data set, a variant and a method together; none may be in two of them."""
    joined: dict[str, Any] = {}
    parts = {f"data.{name}": data[name], f"options.variants.{variant}": variants[variant]}
    parts[f"methods.{method}"] = methods[method]
    origin: dict[str, str] = {}
    for where, options in parts.items():
        for option in options:
            if option in origin:
                raise ConfigError(
                    f"{option} is given by {origin[option]} and by {where}; give it in one of them"
                )
            origin[option] = where
        joined |= options
    return joined


def _check_splits(where: str, options: Mapping[str, Any]) -> None:
    """Raise if a method or variant would be tested on images of its own."""
    for option in options:
        if option in {f"data.{name}" for name in OF_SPLITS}:
            raise ConfigError(
                f"{where} has {option}, which decides what is tested: that must be the same for all; "
                "give it in `data` or in `options`"
            )


def _seeds(values: Mapping[str, Any]) -> list[int]:
    """The seeds of a plan."""
    seeds = values.get("seeds")
    if not isinstance(seeds, list) or not seeds:
        raise ConfigError(f"seeds is {json.dumps(seeds, default=str)}; give a list, e.g. `seeds: [0, 1, 2]`")
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
            raise ConfigError(f"seeds has {seed}; give whole numbers from 0 to {2**32 - 1}")
        if seeds.count(seed) > 1:
            raise ConfigError(f"seeds has {seed} twice; give each once")
    return seeds


def _named(key: str, values: Mapping[str, Any], where: str = "") -> Mapping[str, Any]:
    """The named entries of a key, at least one."""
    entries = _mapping(f"{where}{key}", values.get(key))
    if not entries:
        raise ConfigError(f"there are no {where}{key}; name one or more, e.g. `{key}: {{plain: ...}}`")
    for name in entries:
        if not NAME.fullmatch(name) or BETWEEN in name:
            raise ConfigError(
                f"{where}{key} has the name '{name}', which is to name folders; take letters, digits, _.+=,-"
            )
    return entries


def _mapping(where: str, value: object) -> Mapping[str, Any]:
    """A mapping with names as text; an empty one for nothing."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{where} is {json.dumps(value, default=str)}; give names and values, `name: value`"
        )
    for name in value:
        if isinstance(name, bool) or name is None:
            raise ConfigError(
                f"{where} has the name {name}, as YAML reads yes, no, on, off, null; put it in quotes"
            )
    for name, count in Counter(map(str, value)).items():
        if count > 1:
            raise ConfigError(f"{where} has {name} twice, as a number and as text; give each once")
    return {str(name): entry for name, entry in value.items()}


def _nearest(word: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
