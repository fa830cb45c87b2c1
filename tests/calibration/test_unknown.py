"""Which score tells the unknown: figures against pytorch-ood, and the choice on made-up features."""

import numpy as np
import pytest
import torch

from ramstrans.calibration.scores import Reference, score_of
from ramstrans.calibration.unknown import (
    Seen,
    _masked,
    auroc,
    candidates,
    choose_by_leaving_out,
    choose_on_unknown,
    fpr95,
    threshold,
)


@pytest.mark.parametrize(("num_known", "num_unknown"), [(101, 43), (19, 7), (40, 1)])
def test_figures_are_those_of_pytorch_ood(num_known, num_unknown):
    functional = pytest.importorskip("pytorch_ood.metrics.functional", reason="pip install pytorch-ood")
    rng = np.random.default_rng(num_known)
    known, unknown = rng.normal(0, 1, num_known).round(1), rng.normal(1, 1, num_unknown).round(1)  # with ties
    scores = torch.from_numpy(np.concatenate([known, unknown]))
    labels = torch.tensor([0] * num_known + [-1] * num_unknown)
    assert auroc(known, unknown) == pytest.approx(100 * float(functional.auroc(scores, labels)))
    # There the unknown are the positives; here 95 % of the known are to pass.
    expected = functional.fpr_at_tpr(-scores, -1 - labels)
    assert fpr95(known, unknown) == pytest.approx(100 * float(expected))


def world(per_class=11, num_classes=6, width=8, scales=2, seed=0):
    """Images whose classes lie on axes, in two scales: logits say nothing, features of scale 2 say all."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_classes), per_class)
    features = rng.normal(0, 1, (scales, len(labels), width))
    features[1] = 9 * np.eye(width)[labels] + rng.normal(0, 0.5, (len(labels), width))
    logits = rng.normal(0, 1, (scales, len(labels), num_classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    return Seen(probabilities, logits, features, labels)


def references(seed=1):
    trained_on = world(17, seed=seed)
    return [
        Reference(features.astype(np.float32), trained_on.labels, None) for features in trained_on.features
    ]


def test_candidates_are_what_can_be_had():
    names = [(one.score, one.scales) for one in candidates(2, has_reference=False, has_head=False)]
    assert names == [
        ("max_probability", ()),
        *(("max_logit", scales) for scales in ((1,), (2,), (1, 2))),
        *(("energy", scales) for scales in ((1,), (2,), (1, 2))),
    ]
    assert {one.score for one in candidates(1, has_reference=True, has_head=True)} == {
        *("max_probability", "max_logit", "energy", "knn", "mahalanobis", "vim")
    }
    assert [one.scales for one in candidates(1, has_reference=True, has_head=False, score="knn")] == [(1,)]
    assert candidates(1, has_reference=True, has_head=False, score="vim") == []


def test_the_score_that_tells_left_out_classes_is_chosen():
    choices = candidates(2, has_reference=True, has_head=False)
    best, *others = choose_by_leaving_out(choices, world(), references(), 1.0)
    assert (best.score, best.scales) in {("knn", (2,)), ("mahalanobis", (2,))}
    assert best.auroc > 95
    assert {(one.score, one.scales) for one in (best, *others)} == {
        (one.score, one.scales) for one in choices
    }
    assert [one.auroc for one in others] == sorted((one.auroc for one in others), reverse=True)
    of_scale_1 = next(one for one in others if (one.score, one.scales) == ("knn", (1,)))
    assert 30 < of_scale_1.auroc < 70  # noise


def test_logits_of_left_out_classes_are_masked_in_each_scale():
    logits = np.array([[[4.0, 0, -4, -4]], [[0.0, 0, 0, 0]]])
    whole = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    seen = Seen(whole, logits, np.zeros((2, 1, 3)), np.array([0]))
    found = _masked(seen, np.array([0]), is_unknown=True)
    # scale 1: softmax of 0, -4, -4 is 0.965, 0.018, 0.018; scale 2: a third each
    assert np.exp(found.log_fused[0]) == pytest.approx([0.649, 0.176, 0.176], abs=1e-3)


def test_given_unknown_images_choose_for_themselves():
    choices, known = candidates(2, has_reference=True, has_head=False), world()
    unknown = world(seed=5)
    unknown = unknown._replace(logits=unknown.logits - 9, features=known.features[:, ::-1])
    best = choose_on_unknown(choices, known, unknown, references(), 1.0)[0]
    assert (best.score, best.auroc, best.fpr95) == ("max_logit", 100, 0)


def test_one_class_with_images_leaves_the_order_as_it_is():
    known = world(num_classes=6)
    alone = Seen(*(values[:, :11] for values in known[:3]), known.labels[:11])
    ranked = choose_by_leaving_out(candidates(2, has_reference=False, has_head=False), alone, [], 1.0)
    assert ranked[0].score == "max_probability"
    assert np.isnan(ranked[0].auroc)


def test_the_first_scales_alone():
    first = world().first(1)
    assert first.logits.shape == (1, 66, 6)
    assert first.log_fused == pytest.approx(np.log(world().probabilities[0]))


def test_a_score_of_several_scales_is_their_mean():
    known = world()
    each = [score_of("energy", [scale], known.logits[0], known.logits, None, {}) for scale in (1, 2)]
    both = score_of("energy", [1, 2], known.logits[0], known.logits, None, {})
    assert both == pytest.approx((each[0] + each[1]) / 2)


def test_the_threshold_rejects_the_share_that_is_asked():
    rng = np.random.default_rng(0)
    limit = threshold(rng.normal(0, 1, 9999), 0.05)
    assert (rng.normal(0, 1, 20_000) > limit).mean() == pytest.approx(0.05, abs=0.012)
    assert threshold(np.arange(19.0), 0.05) == 18  # of 20, the new one included, one may be above
