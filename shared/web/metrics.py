"""What this process has answered, counted as it goes and written out for Prometheus when it asks.

The counting is plain arithmetic here because prometheus-client takes longer to import than a model's thin door should
take to wake; the writing out, with its escaping and types, is prometheus-client's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping
from threading import Lock

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counts of one process. Safe under threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._replies: Counter[tuple[str, str, str]] = Counter()
        self._cold_starts: Counter[str] = Counter()
        self._fallbacks: Counter[tuple[str, str]] = Counter()
        self._times: defaultdict[str, _Times] = defaultdict(_Times)
        self._stages: defaultdict[tuple[str, str], _Times] = defaultdict(_Times)

    def count(self, route: str, status: int, code: str, seconds: float) -> None:
        """One reply: its route's pattern, its status, and the failure's code ('' where it is none)."""
        with self._lock:
            self._replies[route, str(status), code] += 1
            self._times[route].add(seconds)

    def count_prediction(self, model: str, stages_ms: Mapping[str, float], *, cold: bool) -> None:
        with self._lock:
            self._cold_starts[model] += cold
            for stage, stage_ms in stages_ms.items():
                self._stages[model, stage].add(stage_ms / 1e3)

    def count_fallback(self, model: str, code: str) -> None:
        """One prediction that the embedded backend made because the model server failed with `code`."""
        with self._lock:
            self._fallbacks[model, code] += 1

    def exposition(self, at_work: int, waiting: int, device: Mapping[str, str | int]) -> tuple[bytes, str]:
        """The counts in Prometheus' text format with the memory of `device` (see shared.devices), and its content
        type."""
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
        from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

        replies = CounterMetricFamily("thinlens_replies", "Replies sent", labels=["route", "status", "code"])
        cold_starts = CounterMetricFamily(
            "thinlens_cold_starts", "Predictions that waited for their model", labels=["model"]
        )
        fallbacks = CounterMetricFamily(
            "thinlens_fallbacks", "Predictions made here because the model server failed", labels=["model", "code"]
        )
        times = HistogramMetricFamily("thinlens_reply_seconds", "Time from request to reply", labels=["route"])
        stages = HistogramMetricFamily("thinlens_stage_seconds", "Time of a stage", labels=["model", "stage"])
        working = GaugeMetricFamily("thinlens_requests_at_work", "Requests being predicted now", value=at_work)
        queued = GaugeMetricFamily("thinlens_requests_waiting", "Requests waiting for their turn", value=waiting)
        memory = GaugeMetricFamily(
            "thinlens_device_memory_bytes", "Memory of the GPU, by all processes", labels=["device", "kind"]
        )
        for kind in ("total", "used"):
            if f"{kind}_bytes" in device:
                memory.add_metric([str(device["device"]), kind], float(device[f"{kind}_bytes"]))
        with self._lock:
            for labels, count in self._replies.items():
                replies.add_metric(labels, count)
            for model, count in self._cold_starts.items():
                cold_starts.add_metric([model], count)
            for reason, count in self._fallbacks.items():
                fallbacks.add_metric(reason, count)
            for route, time in self._times.items():
                times.add_metric([route], time.buckets(), time.sum_s)
            for stage, time in self._stages.items():
                stages.add_metric(stage, time.buckets(), time.sum_s)

        class Collected:
            def collect(self) -> list[Metric]:
                return [replies, cold_starts, fallbacks, times, stages, working, queued, memory]

        registry = CollectorRegistry(auto_describe=False)
        registry.register(Collected())
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class _Times:
    """A histogram."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BUCKETS_S) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(_BUCKETS_S, seconds)] += 1
        self.sum_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound."""
        total = 0
        result: list[tuple[str, float]] = []
        for bound, count in zip((*_BUCKETS_S, float("inf")), self._counts, strict=True):
            total += count
            result.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
        return result
