"""What a monitoring system may read at ``/metrics``, in Prometheus' text format."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE

__all__ = ["CONTENT_TYPE", "Metrics"]

_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """Counts of one server.

    Args:
        queue_length: tells how many requests wait for the model.
    """

    def __init__(self, queue_length: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("captioner_requests", "Requests, by endpoint.", ["endpoint"], registry=self._registry)
        self._errors = Counter(
            "captioner_errors", "Requests that failed, by endpoint.", ["endpoint"], registry=self._registry
        )
        self._latency = Histogram(
            "captioner_latency_seconds",
            "Time from a request to its answer, by endpoint.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        queue = Gauge("captioner_queue_length", "Requests that wait for the model.", registry=self._registry)
        queue.set_function(queue_length)

    @contextmanager
    def request(self, endpoint: str) -> Iterator[None]:
        """Count a request and time it; an exception counts as an error."""
        self._requests.labels(endpoint).inc()
        start = time.perf_counter()
        try:
            yield
        except Exception:
            self._errors.labels(endpoint).inc()
            raise
        finally:
            self._latency.labels(endpoint).observe(time.perf_counter() - start)

    def refused(self, endpoint: str) -> None:
        """Count a request that was not even begun."""
        self._requests.labels(endpoint).inc()
        self._errors.labels(endpoint).inc()

    def text(self) -> bytes:
        """All figures, in Prometheus' text format."""
        return generate_latest(self._registry)
