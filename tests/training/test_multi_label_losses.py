import math

import pytest
import torch
from torch.nn import functional

from ramstrans.training.losses import mixed_targets, multi_label_loss, positive_weights
from ramstrans.training.mixing import Mixing

LOGITS = torch.linspace(-5, 5, 21).view(3, 7)
TARGETS = (torch.arange(21).view(3, 7) % 4 == 0).float()


def slow_asymmetric(logits, targets, weights=None):
    """Eq. 4 to 7 of arXiv 2009.14119, number by number, with float64."""
    total = 0.0
    for row, wanted in zip(logits.tolist(), targets.tolist(), strict=True):
        for label, (logit, y) in enumerate(zip(row, wanted, strict=True)):
            p = 1 / (1 + math.exp(-logit))
            shifted = max(p - 0.05, 0.0)
            total -= y * math.log(p) * (1.0 if weights is None else float(weights[label]))
            total -= (1 - y) * shifted**4 * math.log(1 - shifted)
    return total / len(logits)


@pytest.mark.parametrize("weights", [None, torch.linspace(0.5, 3, 7)])
def test_asymmetric_loss_is_its_slow_twin(weights):
    found = multi_label_loss(LOGITS, TARGETS, "asymmetric", positive_weights=weights)
    assert float(found) == pytest.approx(slow_asymmetric(LOGITS, TARGETS, weights), rel=1e-5)


def test_asymmetric_loss_leaves_easy_negatives_out_and_stays_finite():
    logits = torch.tensor([[-3.0, 80.0, -80.0]], requires_grad=True)  # sigmoid(-3) is 0.047, below the margin
    loss = multi_label_loss(logits, torch.tensor([[0.0, 0.0, 1.0]]), "asymmetric")
    loss.backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 0] == 0
    assert float(loss.detach()) == pytest.approx(80 + 0.95**4 * -math.log(0.05), rel=1e-5)


def test_asymmetric_gradient_is_that_of_finite_differences():
    logits = LOGITS.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: multi_label_loss(x, TARGETS.double(), "asymmetric"), logits)


def test_binary_cross_entropy_is_the_sum_over_labels():
    expected = functional.binary_cross_entropy(LOGITS.sigmoid(), TARGETS, reduction="sum") / 3
    assert float(multi_label_loss(LOGITS, TARGETS)) == pytest.approx(float(expected), rel=1e-5)


def test_label_smoothing_moves_targets_towards_a_half():
    loss = multi_label_loss(torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.0]]), label_smoothing=0.2)
    p, q = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))
    by_hand = -(0.9 * math.log(p) + 0.1 * math.log(1 - p)) - (0.1 * math.log(q) + 0.9 * math.log(1 - q))
    assert float(loss) == pytest.approx(by_hand, rel=1e-6)


def test_positive_weights_balance_the_two_sides():
    targets = torch.tensor([[1.0, 0, 1], [0, 0, 1], [0, 1, 1], [0, 1, 1]])
    weights = positive_weights([(0, 2), (2,), (1, 2), (1, 2)], 3)
    assert weights.tolist() == pytest.approx([3, 1, 1 / 4])
    logits = torch.zeros(4, 3, requires_grad=True)
    multi_label_loss(logits, targets, positive_weights=weights).backward()
    assert logits.grad.sum(dim=0)[:2].tolist() == pytest.approx([0, 0])  # a label on all images cannot


def test_mixed_targets_have_shares_of_both_images():
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    whole = torch.tensor([[0.0, 0, 8, 8]] * 2)
    mixup = Mixing(torch.tensor([1, 0]), 0.25)
    assert mixed_targets(targets, whole, mixup).tolist() == [[0.75, 0, 1], [0.25, 0, 1]]
    cutmix = Mixing(torch.tensor([1, 0]), 0.25, (0, 0, 4, 4))
    boxes = torch.tensor([[0.0, 0, 4, 4], [4.0, 4, 8, 8]])  # all of what was pasted, and none
    assert mixed_targets(targets, boxes, cutmix).tolist() == [[0, 0, 1], [0, 0, 1]]
    assert mixed_targets(targets, whole, None) is targets
