"""What a run says when memory runs out in a step."""

import re

import pytest
import torch

from ramstrans.errors import TrainingError
from ramstrans.training import out_of_memory as module
from ramstrans.training.out_of_memory import out_of_memory
from ramstrans.training.planning.cost import in_one_part
from ramstrans.training.planning.trials import build_trial, random_batch
from tests.training.builders import tiny_run

CUDA = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 8"
)


@pytest.fixture
def step():
    """Takes a step of 12 images whose blocks fail as they are told to; what the run says."""

    def step(fail, precision="fp32", *, checkpointing=False, **options):
        config = tiny_run(
            None, "toybirds", model={"num_classes": 3, "zoom_source": "full"}, data={"val_fraction": 0.1}
        )
        stepper, preprocessing = build_trial(config, precision, 2)
        backbone = stepper.model.backbone
        backbone.gradient_checkpointing = checkpointing
        options = {"gradient_checkpointing": checkpointing} | options
        parts = options.pop("gradient_accumulation_steps", 1)
        recipe = in_one_part(stepper.config, **options)
        object.__setattr__(recipe, "gradient_accumulation_steps", parts)
        stepper = stepper._replace(config=recipe)
        backbone.vit.blocks[1].register_forward_pre_hook(lambda _, args: fail(args[0], backbone))
        batch = random_batch(config, preprocessing, 12)
        with pytest.raises(TrainingError) as caught:
            stepper.step(batch, preprocessing)
        assert all(parameter.grad is None for parameter in stepper.model.parameters())
        assert caught.value.__context__ is None  # whose frames would keep the activations
        return str(caught.value)

    return step


def always(tokens, backbone):
    raise CUDA


def above(most):
    """A device on which that many images fit."""

    def fail(tokens, backbone):
        if len(tokens) > most:
            raise CUDA

    return fail


def test_where_nothing_can_be_measured_the_next_options_are_named_in_order(step):
    message = step(always)
    assert message.startswith(
        "out of memory in a step of 12 images a process, 12 at a time, fp32 (CUDA out of memory); try in "
        "this order: --training.gradient_accumulation_steps 2, --training.gradient_checkpointing true, "
        "--training.precision bf16, an --model.image_size below 24x24, --training.fsdp true on several GPUs; "
    )
    assert "`ramstrans plan`" in message
    assert "\n" not in message


def test_what_is_done_already_is_not_named(step):
    message = step(always, "bf16", checkpointing=True, gradient_accumulation_steps=5)
    assert "12 images a process, 3 at a time, bf16" in message
    assert "order: --training.gradient_accumulation_steps 10, an --model.image_size" in message
    assert "--training.gradient_accumulation_steps 12, an" in step(
        always, "bf16", checkpointing=True, gradient_accumulation_steps=7
    )
    assert "order: an --model.image_size" in step(
        always, "bf16", checkpointing=True, gradient_accumulation_steps=99
    )


def test_what_fits_is_measured(step):
    message = step(above(4))
    assert (
        "measured since, this fits: --training.gradient_accumulation_steps 2, or "
        "--training.gradient_checkpointing true "
        "--training.gradient_accumulation_steps 1; else try in this order: --training.precision bf16, an"
        in message
    )
    assert "--training.gradient_accumulation_steps 3," in step(above(4), gradient_accumulation_steps=2)
    assert step(above(4), checkpointing=True).count("--training.gradient_accumulation_steps") == 1


def test_what_was_measured_counts(step, monkeypatch):
    """Of a device with little left: weights, state and gradients, and some images."""
    monkeypatch.setattr(module, "device_bytes", lambda _: 700_000)
    [whole, checkpointed] = map(int, re.findall(r"accumulation (\d+)", step(above(4))))
    assert 12 >= whole > checkpointed > 1


def test_only_checkpointing_may_help(step):
    def fail(tokens, backbone):
        if not backbone.gradient_checkpointing:
            raise CUDA

    message = step(fail)
    assert (
        "this fits: --training.gradient_checkpointing true --training.gradient_accumulation_steps 1; else"
        in message
    )


def test_an_allocation_that_fails_for_good(step):
    message = step(lambda *_: torch.empty(2**50))
    assert re.search(
        r"fp32 \(DefaultCPUAllocator: .* you tried to allocate 4503599627370496 bytes\)", message
    )
    assert "order: --training.gradient_accumulation_steps 2, " in message


def test_in_the_backward_pass_and_in_the_optimiser_too(step, monkeypatch):
    def fail_later(tokens, backbone):
        tokens.register_hook(lambda _: torch.empty(2**50))

    assert "(DefaultCPUAllocator" in step(fail_later)

    def no_room(*_):
        raise CUDA

    monkeypatch.setattr(torch.optim.AdamW, "step", no_room)
    assert "(CUDA out of memory)" in step(lambda *_: None)


def test_several_processes_do_not_measure(step, monkeypatch):
    """The others would wait for this one's gradients."""
    monkeypatch.setattr(module, "measure_step", lambda *_: pytest.fail("it measured"))
    assert "order: --training.gradient_accumulation_steps 2" in step(above(4), compile=True)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("something else")])
def test_other_errors_stay_what_they_are(step, error):
    def fail(*_):
        raise error

    with pytest.raises(type(error), match=str(error)):
        step(fail)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you "
            "tried to allocate 17 bytes. Error code 12 (Cannot allocate memory)",
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 17 bytes",
        ),
        (
            "[enforce fail] data. DefaultCPUAllocator: not enough memory: you tried to allocate 17 bytes.",
            "DefaultCPUAllocator: not enough memory: you tried to allocate 17 bytes",
        ),
        (
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate\nmore",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate",
        ),
        ("size mismatch", None),
    ],
)
def test_errors_are_told_apart(message, told):
    assert out_of_memory(RuntimeError(message)) == told


def test_an_error_without_words_is_told():
    assert out_of_memory(torch.OutOfMemoryError()) == "out of memory"
