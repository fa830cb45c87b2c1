"""Judge `add_class`: classes that training held out are added from a few photographs each.

    python scripts/few_shot.py RUN [--shots 5] [--draws 3]

RUN was trained with --data.hold_out_classes. For each draw of photographs from the training split of the
classes held out, each class is added alone, and all of them together. The table has the top-1, in percent,
on test images of the new classes and of the old ones, and the share of the old ones that are taken for a new
class: by the imprinted classifier, by the vote of the 20 nearest training images, to which the new
photographs are added, and by the nearest mean of features. Each figure is the mean over draws with its
standard deviation.
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ramstrans.console import no_progress
from ramstrans.data.loading.loader import build_loader
from ramstrans.data.records import Record
from ramstrans.evaluation.config import EvaluationData
from ramstrans.evaluation.images import data_config, dataset_of, read_drawn, spread
from ramstrans.evaluation.predict import choose_precision, predict_split
from ramstrans.inference.imprint import Old, imprint
from ramstrans.inference.new_class import QUERIES_PER_CLASS
from ramstrans.saved.embeddings import nearest, unit, vote
from ramstrans.saved.model import load_model

K = 20

Teller = Callable[[np.ndarray], np.ndarray]
"""From features (N, S, D) to classes (N,); the new ones come after the old ones."""


class Part(NamedTuple):
    """Features (N, S, D) and labels (N,) of some images."""

    features: np.ndarray
    labels: np.ndarray
    records: tuple[Record, ...]

    def of(self, records: Sequence[Record]) -> "Part":
        """Some of them."""
        row_of = {record.path: row for row, record in enumerate(self.records)}
        rows = [row_of[record.path] for record in records]
        return Part(self.features[rows], self.labels[rows], tuple(records))


def parts_of(run: Path) -> tuple[dict[str, Part], np.ndarray, np.ndarray]:
    """The splits of the classes that are known, and of those held out; weight and bias of the classifier."""
    model, metadata = load_model(run)
    data = data_config(metadata.run_options("data"), EvaluationData())
    drawn = read_drawn(metadata, data)
    if drawn.held_out is None:
        raise SystemExit(f"{run} was not trained with --data.hold_out_classes")
    found = {}
    for name in ("train", "val", "test", "new_train", "new_test"):
        split = name.removeprefix("new_")
        dataset, _ = dataset_of(metadata, drawn.images, split, data, no_progress)
        if name != split:
            dataset = dataclasses.replace(dataset, records=drawn.held_out.of_split(split))
        loader = build_loader(dataset, batch_size=32, shuffle=False, with_high_res=model.needs_high_res)
        precision = choose_precision(None, metadata, model.device)
        features = predict_split(model, loader, precision=precision, keep=True).features
        labels = np.array([record.label for record in dataset.records])
        found[name] = Part(features.transpose(1, 0, 2), labels, tuple(dataset.records))
    head = model.encoder.get_classifier()
    return found, head.weight.detach().flatten(1).cpu().numpy(), head.bias.detach().cpu().numpy()


def by_classifier(weight: np.ndarray, bias: np.ndarray) -> Teller:
    """The highest mean of the scales' probabilities."""

    def tell(features: np.ndarray) -> np.ndarray:
        logits = features @ weight.T + bias
        odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return (odds / odds.sum(axis=-1, keepdims=True)).mean(axis=1).argmax(axis=-1)

    return tell


def joined(features: np.ndarray) -> np.ndarray:
    """(N, S * D) of length 1."""
    return unit(features.reshape(len(features), -1), features.shape[1])


def by_neighbours(features: np.ndarray, labels: np.ndarray, count: int) -> Teller:
    """The vote of the nearest."""
    bank = joined(features)
    return lambda queries: vote(*nearest(bank, joined(queries), K), labels.tolist(), count)


def by_means(features: np.ndarray, labels: np.ndarray, count: int) -> Teller:
    """The class whose mean is nearest in direction, seen from the mean of all."""
    bank = joined(features)
    centre = bank.mean(axis=0)
    means = np.stack([bank[labels == label].mean(axis=0) - centre for label in range(count)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return lambda queries: ((joined(queries) - centre) @ means.T).argmax(axis=1)


def tellers(
    parts: dict[str, Part], weight: np.ndarray, bias: np.ndarray, drawn: Sequence[np.ndarray]
) -> dict[str, Teller]:
    """What tells the old classes and new ones, of which there are these photographs (n, S, D)."""
    train, val = parts["train"], parts["val"]
    shots = train.of(spread(train.records, len(drawn[0])))
    queries = val.of(spread(val.records, QUERIES_PER_CLASS))
    old = Old(weight, bias, shots.features, shots.labels, queries.features, queries.labels)
    rows = [imprint(features, old) for features in drawn]
    features = np.concatenate([train.features, *drawn])
    numbers = np.arange(len(bias), len(bias) + len(drawn))
    labels = np.concatenate([train.labels, np.repeat(numbers, len(drawn[0]))])
    count = len(bias) + len(drawn)
    return {
        "imprinted": by_classifier(
            np.stack([*weight, *(row.weight for row in rows)]), np.array([*bias, *(row.bias for row in rows)])
        ),
        f"{K} nearest": by_neighbours(features, labels, count),
        "nearest mean": by_means(features, labels, count),
    }


def judge(teller: Teller, old: Part, new: Part, labels: np.ndarray, num_old: int) -> list[float]:
    """Percent: new right, old right, old taken for new."""
    answers = teller(old.features)
    right = teller(new.features) == labels
    return [100 * float(one.mean()) for one in (right, answers == old.labels, answers >= num_old)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--draws", type=int, default=3)
    given = parser.parse_args()
    parts, weight, bias = parts_of(given.run)
    new_train, new_test, test = parts["new_train"], parts["new_test"], parts["test"]
    before = by_classifier(weight, bias)(test.features) == test.labels
    num_new = int(new_train.labels.max()) + 1
    print(f"before: top-1 {100 * before.mean():.1f} % of {len(test.labels)} test images, {len(bias)} classes")
    found: dict[tuple[str, str], list[list[float]]] = {}
    for seed in range(given.draws):
        rng = np.random.default_rng(seed)
        rows = [np.flatnonzero(new_train.labels == label) for label in range(num_new)]
        drawn = [new_train.features[rng.choice(some, given.shots, replace=False)] for some in rows]
        each = []
        for label in range(num_new):
            alone = new_test.of([new_test.records[row] for row in np.flatnonzero(new_test.labels == label)])
            numbers = np.full(len(alone.labels), len(bias))
            each.append(
                {
                    name: judge(teller, test, alone, numbers, len(bias))
                    for name, teller in tellers(parts, weight, bias, [drawn[label]]).items()
                }
            )
        for name in each[0]:
            mean = np.mean([entry[name] for entry in each], axis=0).tolist()
            found.setdefault(("one class", name), []).append(mean)
        for name, teller in tellers(parts, weight, bias, drawn).items():
            row = judge(teller, test, new_test, len(bias) + new_test.labels, len(bias))
            found.setdefault((f"{num_new} classes", name), []).append(row)
    print("| added | by | new classes | old classes | old taken for new |\n|---|---|---|---|---|")
    for (what, name), rows in found.items():
        values = np.array(rows)
        spreads = values.std(axis=0, ddof=1) if len(rows) > 1 else np.zeros(3)
        cells = [f"{mean:.1f} ± {sd:.1f}" for mean, sd in zip(values.mean(axis=0), spreads, strict=True)]
        print(f"| {what} | {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
