"""`mmlab record`: window after window, each recorded by a Recorder of its own, until a signal says stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from mmlab.core.errors import LakeError
from mmlab.core.spans import NS_PER_S
from mmlab.flows import record_start as start
from mmlab.flows.compact import recover
from mmlab.flows.recorder import LEAD_NS, REAL, TICK_S, Clocks, Recorder
from mmlab.record.health import Health, serve_metrics
from mmlab.record.spec import RecordSpec
from mmlab.store.runs import default_run_id, open_log
from mmlab.venues.endpoints import Listing


def open_run_log(spec: RecordSpec, out_root: Path, level: str) -> logging.Logger:
    """The recorder's own log: out/logs/record/<symbols>/<day of the start>/<time of the start>/run.log."""
    now = datetime.fromtimestamp(time.time(), UTC)
    return open_log(out_root / "logs", "record", "+".join(spec.symbols), f"{now:%Y%m%d}", default_run_id(now), level)


def record(spec: RecordSpec, log: logging.Logger, status: Callable[[str], None], clocks: Clocks = REAL) -> Health:
    """Record window after window until stopped; returns the counts.

    Raises UsageError for what cannot be meant (symbol unknown, place taken), LakeError when the disk is full.
    """
    health = Health(spec.symbols)
    locks = start.lock_symbols(spec)
    end_metrics = None
    try:
        if spec.metrics_port is not None:
            end_metrics = serve_metrics(spec.metrics_port, health, time.time_ns)
        asyncio.run(_windows(spec, log, status, health, clocks))
    finally:
        if end_metrics is not None:
            end_metrics()
        for lock in locks:
            lock.release()
    return health


async def _windows(
    spec: RecordSpec, log: logging.Logger, status: Callable[[str], None], health: Health, clocks: Clocks
) -> None:
    """Wait for each window, and record it."""
    stops: list[int] = []
    running: list[Recorder] = []

    def stop() -> None:
        stops.append(1)
        for recorder in running:
            recorder.stop_asked = len(stops)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    while not stops:
        _recover(spec, log)
        span = spec.hours.span(clocks.wall_ns())
        while not stops and clocks.wall_ns() < span[0] - LEAD_NS:
            opens = datetime.fromtimestamp(span[0] // NS_PER_S, UTC)
            health.state = f"waiting for {opens:%Y-%m-%d %H:%M:%S} UTC"
            status(health.line(clocks.wall_ns()))
            await asyncio.sleep(min(TICK_S, max((span[0] - LEAD_NS - clocks.wall_ns()) / NS_PER_S, 0)))
        start.check_levels(spec, clocks.wall_ns())
        befores = [start.recorded_before(spec, symbol, clocks.wall_ns()) for symbol in spec.symbols]
        listings = await _listings(spec, log, stops, span, health, status, clocks)
        if stops or listings is None:
            continue
        recorder = Recorder(spec, span, max((b.last_ns for b in befores if b), default=0), log, health, clocks)
        running[:] = [recorder]
        await recorder.run(listings, status)
        recorder.tidy()
        if recorder.fault:
            raise LakeError(
                f"recording stopped: {recorder.fault}", remedy="what was received is sealed; the log has more"
            )
        if spec.duration_s is not None:
            return


def _recover(spec: RecordSpec, log: logging.Logger) -> None:
    """Seal and compact what a recorder before us left."""
    for done in recover(Path(spec.data_root), spec.venue, spec.keep_raw):
        if done.refs:
            log.warning("recovered segment %s: %d records to %d days", done.segment, done.records, len(done.refs))
        for fault in done.faults:
            log.error("segment %s: %s", done.segment, fault)


async def _listings(
    spec: RecordSpec, log: logging.Logger, stops: list[int], span: tuple[int, int], health: Health,
    status: Callable[[str], None], clocks: Clocks,
) -> dict[str, Listing] | None:  # fmt: skip
    """Filters: from REST, or as they were last known if REST does not answer; None if the window closes first."""
    wait_s = 0.25
    while not stops and clocks.wall_ns() < span[1]:
        blocked = clocks.wall_ns() < start.read_ban(spec)
        fault = "the venue's ban is not over"
        if not blocked:
            found, code, headers, fault = await asyncio.to_thread(start.ask_listings, spec)
            if found:
                return found
            if code in (418, 429):
                after = headers.get("retry-after", "60")
                start.write_ban(
                    spec, clocks.wall_ns() + int(after if after.isascii() and after.isdigit() else 60) * NS_PER_S, code
                )
        known = start.known_listings(spec)
        if len(known) == len(spec.symbols):
            log.warning("filters as last recorded, since REST does not tell them: %s", fault)
            return known
        log.warning("no filters yet: %s", fault)
        health.state = f"waiting for the venue ({fault})"
        status(health.line(clocks.wall_ns()))
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, 15.0)
    return None
