"""What a recorder is told: what to record, when, where, and what it promises."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath

from mmlab.core.errors import UsageError
from mmlab.core.schemas import LEVELS
from mmlab.record.commands import Settings
from mmlab.record.window import Window
from mmlab.venues.endpoints import VENUES, Venue, parse_streams

MAX_LEVELS = 5000


@dataclass(frozen=True)
class RecordSpec:
    """One recorder. Times as their names say; `ws_url` and `rest_url` empty are the venue's own."""

    venue: str
    symbols: tuple[str, ...]
    streams: tuple[str, ...]
    data_root: PurePath
    window: str = "08:00-22:00"
    tz: str = "Europe/Berlin"
    levels: int = LEVELS
    keep_raw: bool = False
    flush_ms: int = 100
    fsync_ms: int = 1000
    queue_mb: float = 64
    segment_min: float = 60.0
    segment_mb: int = 512
    min_free_mb: int = 1024
    ping_s: float = 8.0
    duration_s: float | None = None
    metrics_port: int | None = None
    ws_url: str = ""
    rest_url: str = ""
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        if self.venue not in VENUES:
            raise UsageError(f"unknown venue {self.venue!r}", remedy=f"give --venue {' or '.join(VENUES)}")
        if not self.symbols or len(set(self.symbols)) < len(self.symbols) or not all(self.symbols):
            raise UsageError("--symbol names no symbol, or one twice", remedy="give each once, like --symbol ETHUSDT")
        parse_streams(",".join(self.streams))
        Window.parse(self.window, self.tz)
        if not 1 <= self.levels <= MAX_LEVELS:
            raise UsageError(f"levels is {self.levels}", remedy=f"give --levels from 1 to {MAX_LEVELS}")
        for name in ("flush_ms", "fsync_ms", "queue_mb", "segment_min", "segment_mb", "ping_s"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}", remedy=f"give --{name.replace('_', '-')} above 0")
        if not self.settings.life_s > 0 or not self.settings.snapshot_s >= 0:
            raise UsageError(
                f"renew_h is {self.settings.life_s / 3600}, snapshot_min {self.settings.snapshot_s / 60}",
                remedy="give --renew-h above 0, --snapshot-min above 0 or 0 for never",
            )
        for flag, url, schemes in (
            ("--ws-url", self.ws_url, ("ws://", "wss://")),
            ("--rest-url", self.rest_url, ("http://", "https://")),
        ):
            if url and not url.startswith(schemes):
                raise UsageError(
                    f"{flag} is {url!r}", remedy=f"give an address that starts with {' or '.join(schemes)}"
                )

    @property
    def at(self) -> Venue:
        """The venue."""
        return VENUES[self.venue]

    @property
    def hours(self) -> Window:
        """The recording window."""
        return Window.parse(self.window, self.tz)


def parse_symbols(text: str) -> tuple[str, ...]:
    """`ETHUSDT,BTCUSDT` as the venue writes them."""
    return tuple(part.strip().upper() for part in text.split(",") if part.strip())
