"""Counters of a server in Prometheus' text format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper edges of the histogram of response times."""
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Histogram:
    """Counts of values up to edges."""

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges, self.counts = edges, [0] * len(edges)
        self.total, self.count = 0.0, 0

    def add(self, value: float) -> None:
        """Count a value."""
        self.total += value
        self.count += 1
        for place, edge in enumerate(self.edges):
            self.counts[place] += value <= edge

    def lines(self, name: str) -> Iterator[str]:
        """The lines of the format."""
        for edge, count in zip(self.edges, self.counts, strict=True):
            yield f'{name}_bucket{{le="{edge:g}"}} {count}'
        yield f'{name}_bucket{{le="+Inf"}} {self.count}'
        yield f"{name}_sum {self.total:.6f}"
        yield f"{name}_count {self.count}"


class Metrics:
    """What a server counts."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        """{(kind of path, status): count}."""
        self.seconds, self.batches = Histogram(SECONDS), Histogram(SIZES)
        self.running = 0

    def text(self, **gauges: float) -> str:
        """The exposition, with further gauges."""
        lines = ["# TYPE hmgr_requests_total counter"]
        for (path, status), count in sorted(self.requests.items()):
            lines.append(f'hmgr_requests_total{{path="{path}",status="{status}"}} {count}')
        for name, found in (("search_seconds", self.seconds), ("batch_size", self.batches)):
            lines += [f"# TYPE hmgr_{name} histogram", *found.lines(f"hmgr_{name}")]
        for name, value in {"requests_running": self.running, **gauges}.items():
            lines += [f"# TYPE hmgr_{name} gauge", f"hmgr_{name} {value:g}"]
        return "\n".join(lines) + "\n"
