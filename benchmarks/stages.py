"""`python -m benchmarks.stages RUN FOLDER`: milliseconds to read, decode, compute and write.

Per photograph, for the cost model of docs/scale.md. One thread reads and decodes; the model computes
with torch's threads.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ramstrans.data.reading.formats import has_image_suffix
from ramstrans.inference.predictor import Predictor
from ramstrans.inference.writers import to_row, write_parquet


def main() -> None:
    """Measure, and print a line per stage."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__)
    parser.add_argument("run", help="run folder, or hf://user/name")
    parser.add_argument("folder", type=Path, help="folder of photographs")
    parser.add_argument("--batches", type=int, default=8, help="batches of 32 photographs")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    options = parser.parse_args()
    predictor = Predictor.load(options.run, options.device)
    paths = sorted(path for path in options.folder.rglob("*") if has_image_suffix(path.name))
    chosen = paths[:: max(1, len(paths) // (32 * options.batches))][: 32 * options.batches]
    seconds: dict[str, list[float]] = {"read": [], "decode": [], "compute": [], "write": []}
    size = 0
    for start in range(0, len(chosen), 32):
        batch = chosen[start : start + 32]
        contents = timed(seconds["read"], lambda batch=batch: [path.read_bytes() for path in batch])
        size += sum(map(len, contents))
        read = timed(seconds["decode"], lambda contents=contents: [predictor._read(one) for one in contents])
        pairs = list(zip(batch, read, strict=True))
        predictions = timed(seconds["compute"], lambda pairs=pairs: predictor._predict(pairs, 5))
        rows = [to_row(prediction, 5) for prediction in predictions]
        timed(seconds["write"], lambda rows=rows: write_parquet(rows, io.BytesIO(), 5))
    print(f"{len(chosen)} photographs of {size / len(chosen) / 1e3:.0f} kB")
    for stage, times in seconds.items():
        low, middle, high = statistics.quantiles([1000 * value / 32 for value in times[1:]], n=4)
        print(f"{stage:8} {middle:8.3f} ms ({low:.3f} - {high:.3f})")


def timed(times: list[float], call: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the call gives
    """Call, and note how long it took."""
    start = time.perf_counter()
    result = call()
    times.append(time.perf_counter() - start)
    return result


if __name__ == "__main__":
    main()
