"""Judge the maps of `explain --against`: delete what speaks for a class, and look again.

    python scripts/contrast.py RUN [--images 40] [--share 0.1] [--draws 3]

On test images drawn by a seed, at each scale, the locations that speak most for the answer against the
runner-up are replaced by the mean colour, and the same number of those that speak most for the runner-up, of
the most salient ones, and of random ones. The table has the mean change of the difference of the two logits
(the standard error over images), and for what share of the images the change is lower than by random ones.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch

from ramstrans.console import no_progress
from ramstrans.data.loading.loader import build_loader
from ramstrans.evaluation.config import EvaluationData
from ramstrans.evaluation.images import data_config, dataset_of, read_drawn
from ramstrans.evaluation.perturbation import rank_mask, ranks_of
from ramstrans.models.contrast import contrasts
from ramstrans.saved.model import load_model


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--draws", type=int, default=3, help="Of random locations, whose mean counts.")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model, metadata = load_model(given.run)
    data = data_config(metadata.run_options("data"), EvaluationData())
    dataset, _ = dataset_of(metadata, read_drawn(metadata, data).images, "test", data, no_progress)
    chosen = np.random.default_rng(given.seed).choice(len(dataset), given.images, replace=False)
    dataset = dataclasses.replace(dataset, records=[dataset.records[index] for index in sorted(chosen)])
    generator = torch.Generator().manual_seed(given.seed)
    changes: dict[tuple[int, str], list[float]] = {}
    for batch in build_loader(dataset, batch_size=8, shuffle=False, with_high_res=model.needs_high_res):
        images, high_res = model.normalize(batch.images, batch.high_res)
        with torch.no_grad():
            output = model(images, high_res, last_region=True)
            looks = [images] + [
                model.crop_regions(images if high_res is None else high_res, scale.boxes, number)
                for number, scale in enumerate(output.scales[:-1], start=1)
            ]
        pairs = output.fused.topk(2).indices
        found = contrasts(model, images, high_res, output, *pairs.T)
        for number, (look, one) in enumerate(zip(looks, found, strict=True)):
            orders = {"for": one.maps, "against": -one.maps, "salient": output.scales[number].saliency}
            for draw in range(given.draws):
                orders[f"random {draw}"] = torch.rand(one.maps.shape, generator=generator)
            for name, order in orders.items():
                count = round(given.share * order[0].numel())
                mask = rank_mask(ranks_of(order), count, tuple(look.shape[2:])).to(look.device)
                with torch.no_grad():
                    box = torch.zeros(len(look), 4, device=look.device)
                    logits = model.forward_scale(
                        look.masked_fill(mask, 0), number, box, with_region=False
                    ).logits.gather(1, pairs)
                change = logits[:, 0] - logits[:, 1] - one.difference
                changes.setdefault((number, name), []).extend(change.tolist())
    print("| scale | deleted | change of the difference | lower than by random ones |\n|---|---|---|---|")
    for number in sorted({key[0] for key in changes}):
        random = np.mean([changes[number, f"random {n}"] for n in range(given.draws)], axis=0)
        for name in ("for", "salient", "random", "against"):
            values = random if name == "random" else np.array(changes[number, name])
            error = values.std(ddof=1) / len(values) ** 0.5
            lower = "" if name == "random" else f"{100 * (values < random).mean():.0f} %"
            print(f"| {number + 1} | {name} | {values.mean():+.2f} ± {error:.2f} | {lower} |")


if __name__ == "__main__":
    main()
