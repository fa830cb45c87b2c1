"""Where a run stands: what is saved with a checkpoint beside weights, optimiser and generators."""

from dataclasses import dataclass


@dataclass
class RunState:
    """Where a run stands between two steps; plain numbers and texts, written as JSON.

    Attributes:
        step: Optimiser steps taken, skipped ones included.
        seconds: Wall-clock time of the training so far, evaluations included.
        num_skipped: Steps whose loss or gradient was not finite.
        skipped_in_a_row: The latest of them, without a good step between.
        best_step: Step after which the best evaluation came; 0 before the first.
        best_epoch: Its epoch, from 1.
        best_score: Its fused top-1 on the validation part, percent; -1 before the first.
        log_bytes: Length of metrics.jsonl.
        num_processes: That trained.
        data: Fingerprint of the data set.
    """

    step: int = 0
    seconds: float = 0.0
    num_skipped: int = 0
    skipped_in_a_row: int = 0
    best_step: int = 0
    best_epoch: int = 0
    best_score: float = -1.0
    log_bytes: int = 0
    num_processes: int = 1
    data: str = ""
