"""Prediction on Ray Data: every worker predicts whole partitions, and writes their files itself."""

import logging
import math
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ramstrans.errors import RamsTransError, UsageError
from ramstrans.inference.batches import BatchPredictor
from ramstrans.inference.partitions import Partition, Written, write_partition
from ramstrans.plain import counted

logger = logging.getLogger(__name__)

TIMEOUT = 5.0
"""Seconds to wait for the cluster's first answer."""

LOCAL_STORE = 256 * 2**20
"""Bytes of Ray's object store on this machine: nothing but descriptions of partitions lies there."""


class PartitionWorker:
    """A worker: keeps its model, and predicts one partition per call."""

    def __init__(self, predictor: BatchPredictor, root: Path) -> None:
        self.predictor, self.root = predictor, root

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        """Predict the partitions of a batch; their counts as columns."""
        partitions = map(Partition.from_json, batch["partition"])
        written = [write_partition(partition, self.predictor, self.root) for partition in partitions]
        return {name: [getattr(entry, name) for entry in written] for name in Written._fields}


def check_ray(address: str | None = None) -> None:
    """Raise UsageError unless Ray is installed, and its cluster answers; Ray itself tries for a minute."""
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise UsageError('--engine ray needs Ray: pip install "ramstrans[ray]"') from error
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host, int(port)), TIMEOUT).close()
        except OSError as error:
            raise UsageError(unreachable(address, error)) from error


def predict_on_ray(
    partitions: Sequence[Partition],
    predictor: BatchPredictor,
    root: Path,
    *,
    address: str | None = None,
    workers: int | None = None,
) -> Iterator[Written]:
    """Predict partitions on this machine or a running cluster, in any order, each once it is on the disk.

    A partition whose worker dies is predicted again by another.

    Args:
        partitions: What is to be done.
        predictor: Loaded by every worker.
        root: The folder of their files, which all machines see.
        address: Of a running cluster, e.g. `auto` or `ray://head:10001`; None: Ray is started here.
        workers: Processes with a model; None: one per GPU, else one per machine.

    Raises:
        UsageError: There is no such cluster.
        RamsTransError: A worker cannot go on.
    """
    import ray

    with cluster(address):
        resources = ray.cluster_resources()
        num_gpus = int(resources.get("GPU", 0)) if predictor.device in ("auto", "cuda") else 0
        nodes = sum(1 for node in ray.nodes() if node["Alive"])
        count = min(workers or num_gpus or nodes, len(partitions))
        share = {"num_gpus": min(1, num_gpus / count)} if num_gpus else {}
        cpus = resources.get("CPU", 1) / count
        cpus = math.floor(cpus) if cpus >= 1 else cpus  # Ray takes whole numbers, or parts of one
        logger.info(
            "Ray: %s, %g CPU(s) each%s", counted(count, "worker"), cpus, ", a GPU" if num_gpus else ""
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # progress is ours
        data = ray.data.from_items(
            [{"partition": partition.to_json()} for partition in partitions],
            override_num_blocks=len(partitions),
        ).map_batches(
            PartitionWorker,
            batch_size=1,
            fn_constructor_args=(predictor, root.absolute()),
            compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=2),
            num_cpus=cpus,
            **share,
        )
        with ray_errors():
            for row in data.iter_rows():
                yield Written(**{name: int(row[name]) for name in Written._fields})


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Connect to a cluster, or start Ray on this machine, and leave it at the end."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    options: dict[str, Any] = {"address": address} if address else {"object_store_memory": LOCAL_STORE}
    try:
        ray.init(
            **options,
            log_to_driver=False,
            logging_level="error",
            include_dashboard=None if address else False,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(unreachable(address, error)) from error
    try:
        yield
    finally:
        ray.shutdown()


def unreachable(address: str | None, error: Exception) -> str:
    """The message for a cluster that cannot be reached."""
    return (
        f"--address {address}: Ray cannot be reached ({' '.join(str(error).split())[:200]}); start it with "
        "`ray start --head`, or leave --address out"
    )


@contextmanager
def ray_errors() -> Iterator[None]:
    """Raise what a worker met as it would be without Ray."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, RamsTransError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if isinstance(cause, RamsTransError):
            raise cause from error
        text = " ".join(str(error).split())
        raise RamsTransError(f"a worker of Ray stopped: {text[:200]} ... {text[-300:]}") from error
