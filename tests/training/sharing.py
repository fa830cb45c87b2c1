"""Steps of two processes that share a model: what they hold, and how often they talk.

    python -m tests.training.sharing PRECISION IMAGES PARTS

Prints as JSON the bytes that the first process keeps, the most that a step takes beside them, the collectives
of a step by kind, and what one process is told of two.
"""

import json
import os
import socket
import sys
from collections import Counter
from pathlib import Path

import torch
from accelerate.utils import set_seed
from torch.distributed.tensor.debug import CommDebugMode

from ramstrans.memory import peak_bytes
from ramstrans.models.methods.rams import build_model
from ramstrans.training.planning.cost import measure_step, num_bytes, repeated, state_tensors
from ramstrans.training.planning.fits import Ground
from ramstrans.training.planning.trials import build_trial, random_batch
from ramstrans.training.setup import build_accelerator, use_fused_attention
from ramstrans.training.shares import local_shard
from ramstrans.training.step import build_train_step
from ramstrans.training.trainable import set_train_mode, set_trainable
from tests.training.builders import PREPROCESSING, TINY, tiny_run


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


DEPTH = 6
SIZES = (50, 75)


def config_of(precision, parts):
    """Blocks large enough for their weights to count."""
    model = {"num_classes": 5, "image_size": 32, "zoom_source": "input"}
    model["backbone_options"] = TINY | {"embed_dim": 96, "depth": DEPTH}
    training = {"precision": precision, "gradient_accumulation_steps": parts, "fsdp": True, "batch_size": 64}
    return tiny_run(None, "toybirds", model=model, training=training, data={"val_fraction": 0.1})


def steps(config, images, parts):
    """What a process keeps, the most that a step takes beside that, and its collectives."""
    accelerator = build_accelerator(config, Path())
    set_seed(config.seed)
    model = build_model(config.model)
    model.backbone.use_fused_attention(use_fused_attention(config, accelerator))
    set_trainable(model, config.training)
    stepper = build_train_step(model, config.training, accelerator, 1000)
    set_train_mode(model)
    batch = repeated(random_batch(config, PREPROCESSING, 7), images * parts)

    def step():
        stepper.take(batch, PREPROCESSING, (images * parts, 2 * images * parts))

    step()
    with CommDebugMode() as talk:
        step()
    peak = peak_bytes(step, torch.device("cpu"))
    tensors = [*model.parameters(), *state_tensors(stepper.optimizer)]
    counts = Counter({str(kind).rpartition(".")[2]: count for kind, count in talk.get_comm_counts().items()})
    return {"kept": num_bytes(map(local_shard, tensors)), "step": peak, "collectives": counts}


def told(config, images, parts):
    """The peak of each of two processes, from steps in this one."""
    stepper, preprocessing = build_trial(config, config.training.precision, DEPTH)
    cost = measure_step(stepper, random_batch(config, preprocessing, 7), preprocessing, SIZES)
    return {"told": Ground(0, processes=2, fsdp=True).peak(cost, images, parts), "block": cost.block}


if __name__ == "__main__":
    precision, images, parts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    rank = 0 if os.fork() else 1
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    config = config_of(precision, parts)
    found = steps(config, images, parts)
    torch.distributed.destroy_process_group()
    if rank == 0:
        os.wait()
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            del os.environ[name]
        sys.stdout.write(json.dumps(found | told(config, images, parts)))
