import pytest
import torch

from ramstrans.bench.contestants import CONTESTANTS, build_contestants
from ramstrans.bench.ground import Ground
from ramstrans.bench.steps import stepping
from ramstrans.bench.timing import Contestant
from tests.bench.builders import tiny_case

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("task", "name"), [(task, name) for task, names in CONTESTANTS.items() for name in names]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_contestant_runs(task, name, precision):
    contestant = CONTESTANTS[task][name](Ground(tiny_case(task=task, precision=precision), CPU))
    assert isinstance(contestant, Contestant)
    assert contestant.num_images == (64 if name == "regions" else 2)
    contestant.run()
    contestant.run()


def passes(monkeypatch, case):
    """Forward passes of each contestant's ViT blocks in one call, by contestant."""
    counts = {}
    for name, contestant in build_contestants(case, CPU).items():
        calls = []
        with torch.nn.modules.module.register_module_forward_hook(
            lambda module, *_, calls=calls: calls.append(1) if type(module).__name__ == "Block" else None
        ):
            contestant.run()
        counts[name] = len(calls)
    return counts


@pytest.mark.parametrize("task", ["inference", "training"])
@pytest.mark.parametrize("figure", [("ours", "floor"), ("twin", "ours")])
def test_all_look_as_often_as_ours(monkeypatch, task, figure):
    """Ours splits a batch into parts, but not one of two images."""
    assert passes(monkeypatch, tiny_case(task=task, figure=figure)) == dict.fromkeys(figure, 2 * 3)


def test_the_reference_of_memory_is_one_pass(monkeypatch):
    assert passes(monkeypatch, tiny_case(figure=("ours", "plain"))) == {"ours": 6, "plain": 3}


def test_all_start_from_equal_weights_and_images():
    ground = Ground(tiny_case(), CPU)
    model, vit = ground.model(), ground.vit()
    for name, parameter in vit.named_parameters():
        if name not in ("cls_token", "pos_embed"):
            assert torch.equal(parameter, model.backbone.vit.get_parameter(name)), name
    assert torch.equal(ground.images(), ground.images())


@pytest.mark.parametrize(("precision", "fused"), [("fp32", True), ("bf16", False)])
def test_training_takes_the_attention_of_the_training_loop(precision, fused):
    assert Ground(tiny_case(task="training", precision=precision), CPU).fused is fused


def test_a_step_goes_down_the_loss_as_often_as_asked():
    ground = Ground(tiny_case(task="training"), CPU)
    vit, losses = ground.vit().train(), []
    before = {name: value.clone() for name, value in vit.state_dict().items()}

    def forward(images):
        logits = vit(images)
        losses.append(torch.nn.functional.cross_entropy(logits, ground.labels()).item())
        return [logits]

    stepping(ground, vit, forward, 5)()
    assert len(losses) == 5
    assert losses == sorted(losses, reverse=True)
    assert all(parameter.grad is None for parameter in vit.parameters())
    assert any(not torch.equal(value, before[name]) for name, value in vit.state_dict().items())
