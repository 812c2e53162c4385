"""The fold of a journal: whole, or cut anywhere into segments with checkpoints, it makes the same rows."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import msgspec
import polars as pl
import pytest

from mmlab.core.record import Kind, Record, mark
from mmlab.flows.compact import journal_root
from mmlab.serve.faults import Fault
from mmlab.store.journal_file import SegmentReader
from mmlab.tape.replay import Replay
from mmlab.venues.endpoints import SPOT
from reference.loopback import QUICK, market, play


@pytest.fixture(scope="module")
def journal(tmp_path_factory) -> list[Record]:
    """A run with everything in it: holes, a resync, a hand-over, repeats, REST, garbage, tickers."""
    root = tmp_path_factory.mktemp("journal")
    faults = [
        Fault("drop", event=120, stream="depth"), Fault("duplicate", event=150, stream="trade", count=3),
        Fault("garbage", event=160, payload="x"), Fault("refuse", event=200, for_s=0.3), Fault("close", event=201),
        Fault("shutdown", event=400, for_s=1.6), Fault("drop", event=420, stream="trade", count=2),
    ]  # fmt: skip
    streams = ("depth@100ms", "trade", "aggTrade", "bookTicker")
    asyncio.run(play(market(events=900, faults=faults), root, keep_raw=True, streams=streams, settings=QUICK))
    (path,) = journal_root(Path(root), "binance-spot").glob("*/*.mmj")
    return list(SegmentReader(path))


def tables(replays: list[list[Record]]) -> dict[str, pl.DataFrame]:
    """The rows of segments, each folded by itself."""
    frames: dict[str, list[pl.DataFrame]] = {}
    for records in replays:
        fold = Replay(SPOT, 10, keep=True)
        for record in records:
            fold.take(record)
        fold.end_segment()
        for _, batch in fold.drain(final=True):
            frames.setdefault(batch.table.name, []).append(batch.frame)
    return {name: pl.concat(parts) for name, parts in frames.items()}


def cut(journal: list[Record], at: list[int]) -> list[list[Record]]:
    """The journal in segments, each but the first beginning with the checkpoint of what was before it."""
    live = Replay(SPOT, 10, keep=False)
    parts: list[list[Record]] = [[]]
    for n, record in enumerate(journal):
        if n in at and live.markets:
            saved = Record(
                Kind.MARK, 0, record.recv_ns, record.wall_ns, record.mono_ns, mark("checkpoint", **live.checkpoint())
            )
            live.take(saved)
            parts.append([saved])
        live.take(record)
        parts[-1].append(record)
    assert live.faults == []
    return parts


def test_a_journal_cut_anywhere_makes_the_same_rows(journal):
    """But for `latency`, whose minutes end with a segment. The uncut fold is the slow, obvious twin."""
    whole = tables([journal])
    assert {"depth", "diffs", "trades", "agg_trades", "book_ticker", "gaps", "quarantine", "events"} <= set(whole)
    rng = random.Random(5)
    for _ in range(6):
        parts = cut(journal, sorted(rng.sample(range(len(journal)), 5)))
        made = tables(parts)
        for name in set(whole) - {"latency"}:
            assert made[name].sort(pl.all()).equals(whole[name].sort(pl.all())), name


def test_a_checkpoint_in_the_middle_of_everything_is_exact(journal):
    """Restored at each of many places, the state is the one that was saved, through JSON and back."""
    live = Replay(SPOT, 10, keep=False)
    for n, record in enumerate(journal):
        live.take(record)
        if n % 50 == 49 and live.markets:
            saved = msgspec.json.decode(msgspec.json.encode(live.checkpoint()))
            again = Replay(SPOT, 10, keep=False)
            again.take(Record(Kind.MARK, 0, record.recv_ns, 0, 0, mark("checkpoint", **saved)))
            assert msgspec.json.decode(msgspec.json.encode(again.checkpoint())) == saved, n


def test_a_checkpoint_that_the_records_do_not_lead_to_is_a_fault(journal):
    """It is held against the fold, if that was there before."""
    fold = Replay(SPOT, 10, keep=False)
    for record in journal[:200]:
        fold.take(record)
    saved = fold.checkpoint()
    saved["frames"] += 1
    fold.take(Record(Kind.MARK, 0, journal[200].recv_ns, 0, 0, mark("checkpoint", **saved)))
    assert len(fold.faults) == 1
