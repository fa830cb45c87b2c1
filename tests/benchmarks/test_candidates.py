import pytest
import torch

from benchmarks.candidates import CANDIDATES, build_candidates, stepping
from benchmarks.hardware import Hardware
from tests.benchmarks.builders import tiny_case

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("task", "name"), [(task, name) for task, names in CANDIDATES.items() for name in names]
)
def test_every_candidate_runs(task, name):
    candidate = CANDIDATES[task][name](Hardware(tiny_case(task=task, precision="bf16"), CPU))
    assert candidate.num_images == (64 if name == "regions" else 2)
    candidate.run()
    candidate.run()


@pytest.mark.parametrize(
    ("task", "figure", "expected"),
    [
        ("inference", ("ramstrans", "lower bound"), (6, 6)),
        ("inference", ("reference", "plain"), (6, 3)),
        ("training", ("ramstrans", "lower bound"), (6, 6)),
        ("training", ("reference", "ramstrans"), (6, 6)),
    ],
)
def test_candidates_pass_through_as_many_blocks(task, figure, expected):
    """Two scales of three blocks; a batch of two images is not split into chunks."""
    counts = []
    for candidate in build_candidates(tiny_case(task=task, figure=figure), CPU).values():
        calls = []
        with torch.nn.modules.module.register_module_forward_hook(
            lambda module, *_, calls=calls: calls.append(1) if type(module).__name__ == "Block" else None
        ):
            candidate.run()
        counts.append(len(calls))
    assert tuple(counts) == expected


def test_all_start_from_equal_weights_and_images():
    hardware = Hardware(tiny_case(), CPU)
    model, vit = hardware.model(), hardware.backbone()
    for name, parameter in vit.named_parameters():
        if name not in ("cls_token", "pos_embed"):
            assert torch.equal(parameter, model.encoder.model.get_parameter(name)), name
    assert torch.equal(hardware.images(), hardware.images())


@pytest.mark.parametrize(("precision", "fused"), [("fp32", True), ("bf16", False)])
def test_training_takes_the_attention_of_the_training_loop(precision, fused):
    assert Hardware(tiny_case(task="training", precision=precision), CPU).fused is fused


def test_steps_reduce_the_loss():
    hardware = Hardware(tiny_case(task="training"), CPU)
    vit, losses = hardware.backbone().train(), []

    def forward(images):
        logits = vit(images)
        losses.append(torch.nn.functional.cross_entropy(logits, hardware.labels()).item())
        return [logits]

    stepping(hardware, vit, forward, 5)()
    assert len(losses) == 5
    assert losses == sorted(losses, reverse=True)
    assert all(parameter.grad is None for parameter in vit.parameters())
