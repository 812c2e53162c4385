"""`mmlab record`, `serve`, `check`, `rebuild`: from the venue's socket to a day one can trust."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmlab.cli import options as o
from mmlab.cli.console import ERR, OUT, done, fault, live_line, progress, table, warn
from mmlab.cli.flags import option

WHAT, WHEN, SAFE, VENUE, WATCH = "What", "When", "Promises", "Venue", "Watch"


def record(
    symbol: Annotated[str, option("--symbol", env="SYMBOL", help="One or several: ETHUSDT,BTCUSDT.", panel=WHAT)],
    venue: Annotated[
        str, option("--venue", env="VENUE", help="binance-spot or binance-usdm.", panel=WHAT)
    ] = "binance-spot",
    streams: Annotated[
        str, option("--streams", env="STREAMS", help="Of depth@100ms, trade, aggTrade, bookTicker.", panel=WHAT)
    ] = "depth@100ms,trade",
    levels: Annotated[int, option("--levels", env="LEVELS", help="Book levels a side kept in depth.", panel=WHAT)] = 20,
    data_root: o.DataRoot = Path("data"),
    window: Annotated[
        str, option("--window", env="WINDOW", help="Hours of the day, like 08:00-22:00, or always.", panel=WHEN)
    ] = "08:00-22:00",
    tz: Annotated[str, option("--tz", env="TZ_NAME", help="Time zone of the window.", panel=WHEN)] = "Europe/Berlin",
    duration_s: Annotated[
        float | None, option("--duration-s", env="DURATION_S", help="Stop after this long.", panel=WHEN)
    ] = None,
    keep_raw: Annotated[
        bool, option("--keep-raw", env="KEEP_RAW", help="Keep journals, for mmlab rebuild.", panel=SAFE)
    ] = False,
    flush_ms: Annotated[
        int, option("--flush-ms", env="FLUSH_MS", help="A killed process loses at most this much.", panel=SAFE)
    ] = 100,
    fsync_ms: Annotated[
        int, option("--fsync-ms", env="FSYNC_MS", help="A power cut loses at most this much more.", panel=SAFE)
    ] = 1000,
    queue_mb: Annotated[
        int, option("--queue-mb", env="QUEUE_MB", help="What may wait for a slow disk, before drops.", panel=SAFE)
    ] = 64,
    segment_min: Annotated[
        float,
        option("--segment-min", env="SEGMENT_MIN", help="Journal segments become Parquet this often.", panel=SAFE),
    ] = 60.0,
    min_free_mb: Annotated[
        int, option("--min-free-mb", env="MIN_FREE_MB", help="Stop, sealed, when the disk has less.", panel=SAFE)
    ] = 1024,
    ws_url: Annotated[
        str,
        option("--ws-url", env="WS_URL", help="Another address than the venue's: ws://127.0.0.1:9000.", panel=VENUE),
    ] = "",
    rest_url: Annotated[
        str, option("--rest-url", env="REST_URL", help="Likewise for REST: http://127.0.0.1:9000.", panel=VENUE)
    ] = "",
    ping_s: Annotated[
        float, option("--ping-s", env="PING_S", help="Between pings; twice that finds a dead link.", panel=VENUE)
    ] = 8.0,
    renew_h: Annotated[
        float, option("--renew-h", env="RENEW_H", help="Hand over to a new connection this often.", panel=VENUE)
    ] = 23.5,
    snapshot_min: Annotated[
        float,
        option("--snapshot-min", env="SNAPSHOT_MIN", help="A snapshot to check the book by; 0: never.", panel=VENUE),
    ] = 60.0,
    metrics_port: Annotated[
        int | None, option("--metrics-port", env="METRICS_PORT", help="Prometheus, on 127.0.0.1.", panel=WATCH)
    ] = None,
    out_root: o.OutRoot = Path("out"),
    log_level: Annotated[str, option("--log-level", env="LOG_LEVEL", help="DEBUG to ERROR.", panel=WATCH)] = "INFO",
    as_json: o.Json = False,
) -> None:
    """Record order books and trades: everything that the venue sends, or a declared hole.

    Every message goes into a journal before anything is made of it; sealed journals become Parquet. Stop
    with Ctrl-C or SIGTERM: what was received is sealed first. A second signal seals at once and leaves the
    Parquet to the next start. Holes, and why a day is degraded, are in its manifest, in `gaps` and `events`.
    """
    from mmlab.flows.record import open_run_log
    from mmlab.flows.record import record as run
    from mmlab.record.commands import Settings
    from mmlab.record.spec import RecordSpec, parse_symbols
    from mmlab.venues.endpoints import parse_streams

    settings = Settings(life_s=renew_h * 3600, snapshot_s=snapshot_min * 60)
    spec = RecordSpec(
        venue, parse_symbols(symbol), parse_streams(streams), data_root, window, tz, levels, keep_raw, flush_ms,
        fsync_ms, queue_mb, segment_min, 512, min_free_mb, ping_s, duration_s, metrics_port, ws_url, rest_url, settings,
    )  # fmt: skip
    log = open_run_log(spec, out_root, log_level)
    with live_line() as show:
        health = run(spec, log, show)
    days = data_root / f"venue={spec.venue}"
    OUT.print(f"{health.frames:,} messages, {health.gaps} holes, {health.reconnects} reconnects")
    result = {"path": str(days), "frames": health.frames, "gaps": health.gaps, "dropped": health.dropped}
    done(result, as_json)
    if health.dropped:
        raise typer.Exit(1)


def serve(
    symbol: Annotated[str, option("--symbol", env="SYMBOL", help="Symbols to play.", panel=WHAT)] = "TESTUSDT",
    day: Annotated[
        str | None, option("--day", env="DAY", help="A recorded day to play again; else a seeded market.", panel=WHAT)
    ] = None,
    venue: Annotated[
        str | None, option("--venue", env="VENUE", help="Needed if two venues have the symbol.", panel=WHAT)
    ] = None,
    data_root: o.DataRoot = Path("data"),
    seed: Annotated[int, option("--seed", help="Of the made-up market.", panel=WHAT)] = 0,
    updates_per_s: Annotated[float, option("--updates-per-s", help="Book updates of it.", panel=WHAT)] = 10.0,
    prints_per_s: Annotated[float, option("--prints-per-s", help="Taker orders of it.", panel=WHAT)] = 8.0,
    events: Annotated[
        int | None, option("--events", help="Stand still after this many; without end, if not given.", panel=WHEN)
    ] = None,
    port: Annotated[int, option("--port", env="PORT", help="On 127.0.0.1; 0 takes a free one.", panel=VENUE)] = 9000,
    speed: Annotated[
        float, option("--speed", help="1 is as it was, 10 ten times faster, 0 as fast as is read.", panel=WHEN)
    ] = 1.0,
    duration_s: Annotated[float | None, option("--duration-s", help="End after this long.", panel=WHEN)] = None,
    faults: Annotated[Path | None, option("--faults", help="Script of what goes wrong, TOML.", panel=VENUE)] = None,
    truth: Annotated[
        Path | None, option("--truth", help="Where to log what was sent and what withheld.", panel=WATCH)
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Be the venue: a loopback exchange for recorders and bots, Binance's WebSocket and REST on one port.

    Plays a recorded day, or a seeded market without end, to whoever subscribes; the clock starts with the
    first subscriber. Streams: ws://127.0.0.1:PORT/stream?streams=testusdt@depth@100ms/testusdt@trade, also
    /ws/NAME and live SUBSCRIBE. REST: /api/v3/ depth, exchangeInfo, time, aggTrades, historicalTrades. With
    --faults it drops, delays, doubles, swaps, freezes, closes, bans and lies on cue (docs/serve.md).
    """
    from mmlab.flows import serve as flow
    from mmlab.record.spec import parse_symbols
    from mmlab.serve.faults import parse_faults
    from mmlab.serve.market import SynthSpec
    from mmlab.serve.venue import ServeSpec
    from mmlab.store.lake import Lake

    script = parse_faults(faults.read_text()) if faults else []
    symbols = parse_symbols(symbol)
    if day is None:
        usdm = venue == "binance-usdm"
        made = SynthSpec(symbols, seed, updates_per_s, prints_per_s, usdm=usdm)
        market = flow.synthetic(made, events)
    else:
        from mmlab.core.errors import UsageError
        from mmlab.core.spans import Days

        if len(symbols) != 1:
            raise UsageError("a recorded day is played for one symbol", remedy="give --symbol one name")
        lake = Lake(data_root)
        market = flow.recorded(lake, lake.find(symbols[0], Days.parse(day), venue))
    spec = ServeSpec(port, speed, rebase=day is None)

    def ready(at: int) -> None:
        OUT.print(f"ws://127.0.0.1:{at}/stream and http://127.0.0.1:{at}/api/v3 play {', '.join(symbols)}")

    counts = flow.serve(market, spec, script, truth, duration_s, ready, stay=events is not None)
    OUT.print("played " + ", ".join(f"{n:,} {stream}" for stream, n in sorted(counts.items())))
    done({"counts": counts}, as_json)


def check(
    symbol: o.Symbol,
    day: Annotated[
        str | None, option("--day", env="DAY", help="UTC day or range; all, if not given.", panel=o.DATA)
    ] = None,
    venue: Annotated[
        str | None, option("--venue", env="VENUE", help="Needed if two venues have the symbol.", panel=o.DATA)
    ] = None,
    data_root: o.DataRoot = Path("data"),
    as_json: o.Json = False,
) -> None:
    """Check recorded days: checksums, ids without undeclared holes, books against later snapshots, clocks.

    Prints each day's condition (complete, pending, degraded with reasons, damaged) and its declared holes. The exit
    code is 1 if a day is damaged: a file changed, a hole nobody declared, a book that is not the venue's.
    """
    from mmlab.flows import check as flow
    from mmlab.store.lake import Lake

    lake = Lake(data_root)
    with progress() as show:
        found = flow.check(lake, flow.day_refs(lake, symbol, day, venue), show)
    rows = [(f"{c.ref.day:%Y%m%d}", c.condition, sum(p.rows for p in c.manifest.tables.get("depth", [])),
             sum(p.rows for p in c.manifest.tables.get("trades", [])), c.gaps.height) for c in found]  # fmt: skip
    table(f"{symbol}", ("day", "condition", "frames", "trades", "holes"), rows)
    holes = [
        (f"{c.ref.day:%Y%m%d}", row["stream"], f"{(row['to_ns'] - row['from_ns']) / 1e9:.3f}", row["first_missing"],
         row["last_missing"], row["reason"])
        for c in found for row in c.gaps.iter_rows(named=True)
    ]  # fmt: skip
    if holes:
        table("declared holes", ("day", "stream", "seconds", "first id", "last id", "reason"), holes)
    for checked in found:
        warn([f"{checked.ref.day:%Y%m%d}: {reason}" for reason in checked.manifest.reasons + checked.remarks])
        for text in checked.faults:
            fault(f"{checked.ref.day:%Y%m%d}: {text}", "")
    done({"days": {f"{c.ref.day:%Y%m%d}": [c.condition, *c.faults] for c in found}}, as_json)
    if any(c.faults for c in found):
        ERR.print("  mmlab rebuild makes a day again from its journals, if they were kept (--keep-raw)")
        raise typer.Exit(1)


def rebuild(
    symbol: o.Symbol,
    day: Annotated[str, option("--day", env="DAY", help="UTC day or range.", panel=o.DATA)],
    venue: Annotated[str, option("--venue", env="VENUE", help="Whose journals.", panel=o.DATA)] = "binance-spot",
    data_root: o.DataRoot = Path("data"),
    replace: Annotated[
        bool, option("--replace", help="Put the day in place of the one in the lake, if they differ.", panel=o.RUN)
    ] = False,
    as_json: o.Json = False,
) -> None:
    """Derive recorded days again from their journals, and say whether they are the same byte for byte.

    Needs days recorded with --keep-raw. The exit code is 1 if a day differs and was not replaced.
    """
    from mmlab.core.spans import Days
    from mmlab.flows.check import rebuild as run

    found = [run(data_root, venue, symbol, each, replace) for each in Days.parse(day)]
    for made in found:
        verdict = "identical" if not made.differing else "replaced" if made.replaced else "different"
        OUT.print(f"{symbol} {made.day:%Y%m%d}: {made.segments} segments, {made.parts} parts, {verdict}")
        warn([f"{name} differs" for name in made.differing])
    done({"days": {f"{m.day:%Y%m%d}": m.differing for m in found}}, as_json)
    if any(made.differing and not made.replaced for made in found):
        raise typer.Exit(1)
