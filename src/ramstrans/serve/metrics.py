"""What a server counts, in Prometheus' format."""

from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PATHS = ("/", "/predict", "/health", "/ready", "/metrics", "/model", "/openapi.json")
"""Paths that have a count of their own; all others are one."""


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        self._requests = counter("ramstrans_requests", "Requests by path and status", ["path", "status"])
        self._seconds = histogram(
            "ramstrans_request_seconds", "From a request to its answer", ["path"], buckets=SECONDS
        )
        self._images = counter("ramstrans_images", "Images by result", ["result"])
        self._batches = histogram("ramstrans_batch_size", "Images per batch", buckets=SIZES)
        self.decode = histogram("ramstrans_decode_seconds", "Decoding an image", buckets=SECONDS)
        self.compute = histogram("ramstrans_compute_seconds", "A batch in the model", buckets=SECONDS)
        self.waiting = gauge("ramstrans_waiting_images", "Images that are not answered yet")

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        path = path if path in PATHS else "other"
        self._requests.labels(path, status).inc()
        self._seconds.labels(path).observe(seconds)

    def image(self, *, readable: bool) -> None:
        """Count an image."""
        self._images.labels("answered" if readable else "unreadable").inc()

    def batch(self, size: int) -> None:
        """Count a batch."""
        self._batches.observe(size)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
