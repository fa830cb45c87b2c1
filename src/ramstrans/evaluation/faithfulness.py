"""Whether a model's answer depends on its regions: parts of the image are deleted, and it looks again.

Only the first look judges, at the image in its own frame and size, so that a region is not also enlarged.
What is deleted gets the mean colour that the weights expect (0, once normalised).

    region alone        everything outside the region is deleted: is it enough?
    region deleted      the region is: is it needed?
    moved               the same with a box of the same sides anywhere in the image: would any box do?

Deletion and insertion (RISE, Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421, section 4.2) ask the same
of the saliency without a threshold. With x_k the image whose k most salient locations of n are deleted, or on
a blurred image inserted, and p the probability of the class that the whole image is given,

    area = sum over steps of (p(x_k) + p(x_k')) / 2 * (k' - k) / n

Good saliency has a small area under deletion and a large one under insertion. As both depend on the images
and the model, locations in random order are measured beside them. There are `NUM_STEPS` steps here, not one
for each location.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ramstrans.distributed import autocast
from ramstrans.evaluation.perturbation import blurred, box_mask, rank_mask, ranks_of
from ramstrans.models.methods.base import Stage
from ramstrans.models.methods.boxes import draws_of, moved, whole_image
from ramstrans.models.methods.method import Method

NUM_STEPS = 10
"""Steps of deletion and insertion."""

MASKS = ("alone", "deleted", "moved_alone", "moved_deleted")
"""What is seen of an image, by its region."""

TRUE_MASKS = ("alone", "deleted")
"""What is seen of an image, by its true box."""

CURVES = ("deletion", "insertion", "random_deletion", "random_insertion")


class Faithfulness(NamedTuple):
    """What the first look makes of B images, of which parts are deleted.

    Attributes:
        whole: (B,) bool: whether it is right about the whole image.
        masked: (R, 4, B) bool: about images that are seen as `MASKS` say, for each of R regions.
        belief: (R, 4, B) float32, the probability that it then gives the true class.
        moved_iou: (R, B) float32 in [0, 1], of each region and its moved box, by their pixels.
        true_masked: (2, B) float32: 1 where it is right about images seen as `TRUE_MASKS` say, else 0; NaN
            for images without a true box.
        curves: (4, T, B) float32, for each of `CURVES` the probability of the class that the whole image is
            given, with 0 to all locations deleted or inserted in T - 1 steps.
        curves_right: (4, T, B) bool: whether it is right.
    """

    whole: np.ndarray
    masked: np.ndarray
    belief: np.ndarray
    moved_iou: np.ndarray
    true_masked: np.ndarray
    curves: np.ndarray
    curves_right: np.ndarray


class FirstLook(NamedTuple):
    """The first look of a model, alone: probabilities (B, C) float32 of images (B, 3, H, W)."""

    model: Method
    precision: str

    def __call__(self, images: Tensor) -> np.ndarray:
        """Look at images that are normalised."""
        with autocast(self.model.device, self.precision):
            stage: Stage = self.model.forward_scale(images, 0, whole_image(images), with_region=False)
        return stage.logits.float().softmax(dim=-1).cpu().numpy()


@torch.no_grad()
def faithfulness(
    look: FirstLook,
    images: Tensor,
    labels: np.ndarray,
    regions: Tensor,
    saliency: Tensor,
    true_boxes: Tensor | None = None,
) -> Faithfulness:
    """Delete parts of B images, and look at what is left.

    Args:
        look: The first look.
        images: (B, 3, H, W), normalised.
        labels: (B,), the true classes.
        regions: (R, B, 4), in pixels of `images`.
        saliency: (B, h, w), of the first look.
        true_boxes: (B, 4) in pixels of `images`, NaN where there is none; None: there are none.
    """
    whole, rows = look(images), np.arange(len(images))
    seen = [region_masks(images, boxes) for boxes in regions]
    masked = np.stack([looks_at_masks(look, images, *masks) for masks in seen])
    by_true_box = np.full((len(TRUE_MASKS), len(images)), np.nan, dtype=np.float32)
    if true_boxes is not None:
        has_box = true_boxes.isfinite().all(dim=1).cpu().numpy()
        inside = box_mask(true_boxes.to(images.device), (images.shape[2], images.shape[3]))
        answers = np.stack([look(images * mask).argmax(axis=1) for mask in (inside, ~inside)])
        by_true_box[:, has_box] = (answers == labels)[:, has_box]
    curves = looks_along_curves(look, images, saliency, whole)
    return Faithfulness(
        whole=whole.argmax(axis=1) == labels,
        masked=masked.argmax(axis=-1) == labels,
        belief=masked[:, :, rows, labels],
        moved_iou=np.stack([mask_iou(*masks) for masks in seen]),
        true_masked=by_true_box,
        curves=curves[:, :, rows, whole.argmax(axis=1)],
        curves_right=curves.argmax(axis=-1) == labels,
    )


def region_masks(images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1, H, W) bool masks of one region of each image, and of a box of the same sides anywhere."""
    size = (images.shape[2], images.shape[3])
    elsewhere = moved(boxes, whole_image(images), draws_of(images))
    return box_mask(boxes, size), box_mask(elsewhere, size)


def mask_iou(first: Tensor, second: Tensor) -> np.ndarray:
    """(B,) float32 intersection over union of (B, 1, H, W) masks; 0 for two empty ones."""
    both, either = (mask.flatten(1).sum(dim=1) for mask in (first & second, first | second))
    return (both / either.clamp(min=1)).cpu().numpy()


def looks_at_masks(look: FirstLook, images: Tensor, found: Tensor, elsewhere: Tensor) -> np.ndarray:
    """(4, B, C) probabilities of images that are seen as `MASKS` say."""
    return np.stack([look(images * seen) for seen in (found, ~found, elsewhere, ~elsewhere)])


def looks_along_curves(look: FirstLook, images: Tensor, saliency: Tensor, whole: np.ndarray) -> np.ndarray:
    """(4, T, B, C) probabilities of images with more and more locations deleted, or inserted.

    Locations go in the order of their saliency, and in one that an image's pixels give, see `draws_of`.

    Args:
        look: The first look.
        images: (B, 3, H, W), normalised.
        saliency: (B, h, w).
        whole: (B, C), the probabilities of the whole images.
    """
    size, count = (images.shape[2], images.shape[3]), saliency[0].numel()
    blurs = blurred(images)
    blank, blur = np.repeat(look(torch.zeros_like(images[:1])), len(images), axis=0), look(blurs)
    found = []
    for order in (saliency, draws_of(images, count).view_as(saliency)):
        ranks, deletion, insertion = ranks_of(order), [whole], [blur]
        for step in range(1, NUM_STEPS):
            seen = rank_mask(ranks, round(step * count / NUM_STEPS), size)
            deletion.append(look(images * ~seen))
            insertion.append(look(torch.where(seen, images, blurs)))
        found += [np.stack([*deletion, blank]), np.stack([*insertion, whole])]
    return np.stack(found)


def area_under(values: np.ndarray) -> float:
    """Area under a curve (T,) over equal steps from 0 to 1, by the trapezoid rule.

    >>> area_under(np.array([1.0, 0.5, 0.0]))
    0.5
    """
    return float((values[1:] + values[:-1]).mean() / 2)
