from __future__ import annotations

import pytest

pytest.importorskip("prometheus_client", reason="the page needs the extra 'app'")

from prometheus_client.parser import text_string_to_metric_families

from captioner.web.api import CONTENT_TYPE, Metrics


def figures(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every figure by its name and labels, as Prometheus reads them."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_requests_and_errors_are_counted_by_endpoint() -> None:
    metrics = Metrics(lambda: 0)
    for _ in range(2):
        with metrics.request("/caption"):
            pass
    with pytest.raises(ValueError, match="broken"), metrics.request("/score"):
        raise ValueError("broken")
    found = figures(metrics)
    assert found["captioner_requests_total", "/caption"] == 2
    assert found["captioner_requests_total", "/score"] == 1
    assert found["captioner_errors_total", "/score"] == 1
    assert ("captioner_errors_total", "/caption") not in found or found["captioner_errors_total", "/caption"] == 0
    assert found["captioner_latency_seconds_count", "/caption"] == 2
    assert found["captioner_latency_seconds_count", "/score"] == 1


def test_the_histogram_holds_the_times(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.15, 10.0, 13.0])
    monkeypatch.setattr("prometheus_client.context_managers.default_timer", lambda: next(clock))
    metrics = Metrics(lambda: 0)
    for _ in range(2):
        with metrics.request("/caption"):
            pass
    monkeypatch.undo()
    found = figures(metrics)
    buckets = {le: found["captioner_latency_seconds_bucket", "/caption", le] for le in ("0.1", "0.2", "2.0", "5.0")}
    assert buckets == {"0.1": 0, "0.2": 1, "2.0": 1, "5.0": 2}
    assert found["captioner_latency_seconds_sum", "/caption"] == pytest.approx(3.15)


def test_the_queue_length_is_that_of_now() -> None:
    waiting = [3, 5]
    metrics = Metrics(waiting.pop)
    assert figures(metrics)["captioner_queue_length",] == 5
    assert figures(metrics)["captioner_queue_length",] == 3


def test_two_servers_count_apart() -> None:
    first, second = Metrics(lambda: 0), Metrics(lambda: 0)
    with first.request("/caption"):
        pass
    assert ("captioner_requests_total", "/caption") not in figures(second)
    assert CONTENT_TYPE.startswith("text/plain")
