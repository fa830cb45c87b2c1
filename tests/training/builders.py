"""Loaders and logs of tiny runs."""

from accelerate import Accelerator
from accelerate.state import AcceleratorState

from ramstrans.data.loading.dataset import ImageDataset
from ramstrans.data.loading.loader import build_loader
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.reading.cache import MemoryCache
from ramstrans.training.log import MetricsLog
from tests.tiny import BACKBONE, TINY, same_state, tiny_model, tiny_run

__all__ = ["BACKBONE", "TINY", "same_state", "tiny_model", "tiny_run"]  # for who has them from here still
PREPROCESSING = Preprocessing(36, (32, 32))


def tiny_loader(records, *, shuffle=True, batch_size=4, seed=0, **options):
    """Views of 32 px, decoded once."""
    dataset = ImageDataset(records, PREPROCESSING, (32, 32), seed=seed, cache=MemoryCache(), **options)
    return build_loader(dataset, batch_size, shuffle=shuffle, with_high_res=False, seed=seed)


def metrics_log(folder):
    """A log in a folder, and its accelerator."""
    AcceleratorState._reset_state(reset_partial_state=True)  # of another test's precision
    accelerator = Accelerator(cpu=True)
    return MetricsLog(folder / "metrics.jsonl", accelerator), accelerator


def validation_of(epoch, top1, loss=1.0):
    """A row as `validate` gives it."""
    return {
        **{"kind": "validation", "epoch": epoch, "loss_scales": [loss, loss], "loss_fused": loss},
        **{"top1_scales": [0.0, 0.0], "top1_fused": top1},
    }
