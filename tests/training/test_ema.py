import pytest
import torch
from torch import nn

from ramstrans.training.ema import build_ema, ema_weight
from tests.models.builders import noise
from tests.tiny import same_state, tiny_model


def moved(model, seed):
    """Set all weights and buffers to new values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 10)
    return model


def test_three_steps_are_as_worked_by_hand():
    """0 is copied; then 9/11 of the way from 0 to 11; then 9/12 of the way from 9 to 1; in the end half."""
    model = nn.Linear(1, 1, bias=False)
    ema = build_ema(model, 0.5)
    values = []
    for value in (0.0, 11.0, 1.0):
        nn.init.constant_(model.weight, value)
        ema.update_parameters(model)
        values.append(ema.module.weight.item())
    assert values == pytest.approx([0, 9, 3])
    for _ in range(9):  # from the 8th on the decay is its final one
        ema.update_parameters(model)
    at_the_end = ema.module.weight.item()
    nn.init.constant_(model.weight, at_the_end + 8)
    ema.update_parameters(model)
    assert ema.module.weight.item() == pytest.approx(at_the_end + 4)


def test_the_decay_warms_up_to_its_value_and_stays():
    weights = [float(ema_weight(torch.tensor(n), 0.999)) for n in range(1, 20_000, 97)]
    expected = [1 - min(0.999, (1 + n) / (10 + n)) for n in range(1, 20_000, 97)]
    assert weights == pytest.approx(expected)
    assert weights[-1] == pytest.approx(0.001)


def test_a_decay_of_zero_is_the_model_itself():
    model = tiny_model()
    ema = build_ema(model, 0.0)
    for seed in range(3):
        ema.update_parameters(moved(model, seed))
        assert same_state(ema.module.state_dict(), model.state_dict())


def test_the_average_is_no_view_of_the_model():
    model = tiny_model()
    ema = build_ema(model, 0.9)
    ema.update_parameters(model)
    before = {name: value.clone() for name, value in ema.module.state_dict().items()}
    moved(model, 1)
    assert same_state(ema.module.state_dict(), before)


def test_the_average_needs_no_gradients_and_the_model_keeps_its_own():
    model = tiny_model()
    ema = build_ema(model, 0.9)
    assert not any(parameter.requires_grad for parameter in ema.module.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_average_looks_twice_like_the_model():
    """The copy has its own hooks: what it records is not recorded by the model."""
    model = tiny_model().eval()
    ema = build_ema(model, 0.9)
    images = noise(2, 3, 32, 32)
    with torch.no_grad():
        expected, found = model(images), ema.module(images)
    assert torch.equal(found.scales[1].logits, expected.scales[1].logits)
    ema.update_parameters(moved(model, 1))
    ema.update_parameters(moved(model, 2))
    with torch.no_grad():
        assert not torch.equal(ema.module(images).scales[0].saliency, model(images).scales[0].saliency)


def test_buffers_are_copied_whole():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    ema = build_ema(model, 0.9)
    for seed in range(3):
        ema.update_parameters(moved(model, seed))
    norm, other = ema.module[1], model[1]
    assert torch.equal(norm.running_mean, other.running_mean)
    assert torch.equal(norm.num_batches_tracked, other.num_batches_tracked)
    assert not torch.equal(norm.weight, other.weight)


def test_a_frozen_weight_stays_to_the_last_bit():
    model = nn.Linear(7, 5)
    ema = build_ema(model, 0.99)
    for _ in range(23):
        ema.update_parameters(model)
    assert same_state(ema.module.state_dict(), model.state_dict())


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_resumed_average_goes_on_to_the_last_bit(stop):
    model = tiny_model()
    through = build_ema(model, 0.97)
    stopped = build_ema(model, 0.97)
    for seed in range(7):
        if seed == stop:
            state = {name: value.clone() for name, value in stopped.state_dict().items()}
            stopped = build_ema(moved(tiny_model(), 99), 0.97)
            stopped.load_state_dict(state)
        moved(model, seed)
        through.update_parameters(model)
        stopped.update_parameters(model)
    assert int(stopped.n_averaged) == 7
    assert same_state(stopped.state_dict(), through.state_dict())


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_is_none_is_our_own_mistake(decay):
    with pytest.raises(AssertionError, match="decay"):
        build_ema(nn.Linear(1, 1), decay)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_an_average_on_a_gpu_is_that_on_the_cpu():
    cpu, gpu = tiny_model(), tiny_model().cuda()
    averages = build_ema(cpu, 0.97), build_ema(gpu, 0.97)
    for seed in range(5):
        moved(cpu, seed)
        gpu.load_state_dict(cpu.state_dict())
        for ema, model in zip(averages, (cpu, gpu), strict=True):
            ema.update_parameters(model)
    for one, other in zip(averages[0].module.parameters(), averages[1].module.parameters(), strict=True):
        assert other.device.type == "cuda"
        torch.testing.assert_close(other.cpu(), one)
