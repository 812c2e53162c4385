"""Real recordings, played again by the loopback venue and recorded: the same tables, receive times aside."""

from __future__ import annotations

import asyncio

import polars as pl
import pytest

from mmlab.flows.check import check as check_days
from mmlab.flows.import_raw import ImportSpec, import_raw
from mmlab.flows.serve import recorded, venue
from mmlab.serve.truth import Truth
from mmlab.serve.venue import ServeSpec
from mmlab.store.lake import Lake
from reference.loopback import play, read
from reference.raw_feed import SPOT, USDM, real

RECEIPT = ("recv_ns", "recv_seq", "run_id", "epoch_id", "event_id")
TABLES = ("depth", "diffs", "snapshots", "trades", "book_ticker")


@pytest.mark.parametrize(
    ("files", "at", "symbol", "sizes"),
    [
        (SPOT, "binance-spot", "BTCUSDT", ("0.01", "0.00001")),
        (USDM, "binance-usdm", "ETHUSDT", ("0.01", "0.001")),
    ],
    ids=["spot", "usdm"],
)
def test_real_files_served_and_recorded_give_the_tables_of_import_raw(tmp_path, files, at, symbol, sizes):
    """At full speed, over a socket; every update, level, print and ticker."""
    imported = Lake(tmp_path / "imported")
    import_raw(ImportSpec(at, symbol, *sizes, levels=10), real(files), imported)
    market = recorded(imported, imported.days(symbol=symbol))
    played = asyncio.run(
        play(
            venue(market, ServeSpec(speed=0, rebase=False), [], Truth()), tmp_path / "again", settle_s=2.0,
            symbols=(symbol,), venue=at, streams=("depth@100ms", "trade", "bookTicker"),
        )
    )  # fmt: skip
    for name in TABLES:
        want, got = (read(lake, name, symbol).drop(*RECEIPT, strict=False) for lake in (imported, played.lake))
        if name == "snapshots":  # the last one is the recorder's own, at the end
            got = got.filter(pl.col("last_update_id") == want["last_update_id"][0])
        assert got.equals(want), name
    (found,) = check_days(played.lake, played.lake.days(symbol=symbol), lambda *_: None)
    assert found.faults == []
