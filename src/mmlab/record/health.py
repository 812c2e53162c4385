"""How the recorder is doing: counts and ages at one instant, for the status line and for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mmlab.core.errors import UsageError
from mmlab.core.spans import NS_PER_S


@dataclass
class Health:
    """Counters of one process; ages in seconds, rates in messages a second."""

    symbols: tuple[str, ...]
    frames: int = 0
    bytes: int = 0
    dropped: int = 0
    connections: int = 0
    reconnects: int = 0
    gaps: int = 0
    resyncs: int = 0
    waiting_bytes: int = 0
    free_bytes: int = 0
    lag_p99_ms: float = 0.0
    rate: float = 0.0
    synced: dict[str, bool] = field(default_factory=dict)
    book_ns: dict[str, int] = field(default_factory=dict)  # symbol -> when its book was last right
    state: str = "starting"

    def line(self, now_ns: int) -> str:
        """All of it in one line."""
        books = " ".join(
            f"{symbol} {'synced' if self.synced.get(symbol) else 'UNSYNCED'}"
            + (f" {max(now_ns - self.book_ns[symbol], 0) / NS_PER_S:.1f}s" if self.book_ns.get(symbol) else "")
            for symbol in self.symbols
        )
        return (
            f"{self.state} | {self.frames:,} messages, {self.rate:,.0f}/s | {books} | {self.gaps} holes, "
            f"{self.reconnects} reconnects | journal p99 {self.lag_p99_ms:.0f} ms, {self.waiting_bytes >> 10:,} KiB"
        )

    def gauges(self, now_ns: int) -> Iterator[tuple[str, str, float, str | None]]:
        """(name, help, value, symbol or None) of every metric."""
        yield "frames_total", "messages received", self.frames, None
        yield "bytes_total", "bytes received", self.bytes, None
        yield "dropped_total", "messages dropped under overload, each in a declared hole", self.dropped, None
        yield "reconnects_total", "connections lost", self.reconnects, None
        yield "gaps_total", "holes declared", self.gaps, None
        yield "resyncs_total", "books thrown away", self.resyncs, None
        yield "connections", "connections that stand", self.connections, None
        yield "journal_waiting_bytes", "bytes that wait to be written", self.waiting_bytes, None
        yield "journal_lag_p99_seconds", "receipt to page cache, last minute", self.lag_p99_ms / 1000, None
        yield "disk_free_bytes", "free space under the lake", self.free_bytes, None
        yield "message_rate", "messages a second", self.rate, None
        for symbol in self.symbols:
            yield "book_synced", "1 if the book is right", float(self.synced.get(symbol, False)), symbol
            since = self.book_ns.get(symbol, 0)
            yield (
                "book_age_seconds",
                "since the book last changed",
                (now_ns - since) / NS_PER_S if since else -1.0,
                symbol,
            )


def serve_metrics(port: int, health: Health, now_ns: Any) -> Any:
    """Serve the metrics at 127.0.0.1:port/metrics; returns a function that ends it. Raises UsageError."""
    try:
        from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415 - an extra
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415
    except ImportError:
        raise UsageError("--metrics-port needs prometheus_client", remedy="pip install 'mmlab[metrics]'") from None

    class Collector:
        """Reads the health when it is asked."""

        def collect(self) -> Iterator[Any]:
            families: dict[str, Any] = {}
            for name, text, value, symbol in health.gauges(now_ns()):
                labels = [] if symbol is None else ["symbol"]
                family = families.setdefault(name, GaugeMetricFamily(f"mmlab_{name}", text, labels=labels))
                family.add_metric([] if symbol is None else [symbol], value)
            yield from families.values()

    registry = CollectorRegistry()
    registry.register(Collector())
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise UsageError(f"--metrics-port {port}: {error.strerror}", remedy="give a port that is free") from None

    def end() -> None:
        server.shutdown()
        thread.join(2)

    return end
