"""One side of a comparison of two source trees: times the model of the ramstrans that it imports.

Reads JSON lines from standard input and answers each with one on standard output:

    {"task": "inference" | "training", "precision": ..., "batch_size": ..., "device": ..., "threads": ...,
     "model": fields of ModelConfig}
        -> {"ready": true}     builds the model with random weights, and calls it once
    {"time": true}
        -> {"seconds": 0.123}  of one call: forward in eval mode, or forward and backward of all scales

It needs only `build_model` and `ModelConfig` of the tree, so that old versions can be measured.
"""

import inspect
import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import IO, Any

import torch
import torch.nn.functional as F

import ramstrans


def build(request: dict[str, Any]) -> Callable[[], object]:
    """The call that is timed."""
    torch.manual_seed(0)
    if request["threads"]:
        torch.set_num_threads(request["threads"])
    device, config = torch.device(request["device"]), ramstrans.ModelConfig(**request["model"])
    model = ramstrans.build_model(config).to(device).train(request["task"] == "training")
    size = (config.image_size, config.image_size)
    images = torch.randn(request["batch_size"], 3, *size, device=device)
    labels = torch.zeros(len(images), dtype=torch.int64, device=device)
    has_option = "last_region" in inspect.signature(model.forward).parameters
    options = {"last_region": False} if has_option else {}
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=request["precision"] == "bf16")

    def forward() -> object:
        with torch.inference_mode(), autocast:
            return model(images, **options)

    def step() -> None:
        with autocast:
            scales = model(images)[0]
        loss = torch.stack([F.cross_entropy(scale.logits.float(), labels) for scale in scales]).sum()
        loss.backward()
        model.zero_grad()

    return step if request["task"] == "training" else forward


def serve(requests: Iterable[str], answers: IO[str]) -> None:
    """Answer requests until there are no more."""
    call: Callable[[], object] | None = None
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    for line in requests:
        request = json.loads(line)
        if "time" in request:
            assert call is not None, "a model is built before it is timed"
            synchronize()
            start = time.perf_counter()
            call()
            synchronize()
            answer: dict[str, object] = {"seconds": time.perf_counter() - start}
        else:
            call = build(request)
            call()  # warm up
            answer = {"ready": True}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
