"""How many cores there are."""

import os


def num_cores() -> int:
    """The cores that this process may use: those of its job on a cluster, not all of the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
