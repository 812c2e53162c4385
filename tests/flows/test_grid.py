"""A backtest of the grid from the lake to its folder: whole, the same bytes again, and honest about what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from mmlab.core.errors import LakeError, TableError, UsageError
from mmlab.core.grid_schemas import GRID_TABLES
from mmlab.core.schemas import BARS, FUNDING
from mmlab.flows.grid import backtest, check_lookahead, figures_of, run_coin
from mmlab.flows.grid_run import Where, read_coin, read_config, tick_of, together
from mmlab.flows.report import make_report
from mmlab.flows.simulator import BacktestSimulator
from mmlab.grid.config import LOOK_AHEAD, Config
from mmlab.store.candles import Candles
from mmlab.store.parts import sha256
from mmlab.store.sql import connect, run
from reference import grid_frames as some

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
BUSY = {
    "spacing_floor": 0.001, "grid_spacing_k": 0.3, "adaptive_floor_scale": 0.3, "order_pct": 0.2, "kelly_window": 0,
    "leverage": 3.0, "max_position_pct": 2.0, "kappa": 50.0,
}  # fmt: skip
PLACE = ("binance-usdm", "AUSDT", "15m")


def config(**changes) -> Config:
    given = {**BUSY, "coins": ["A"], "start": "", **changes}
    return Config().with_values(given, "test")


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Path:
    """A: 600 bars with minutes and funding; B: fewer, with a hole and without funding; C: short; D: torn minutes."""
    root = tmp_path_factory.mktemp("lake")
    candles = Candles(root)

    def put(symbol: str, bars: pl.DataFrame, interval: str = "15m", table=BARS) -> None:
        candles.write(table, "binance-usdm", symbol, interval, bars, replace=False, source={"file": "test"})

    finer = some.minutes(1, 600)
    put("AUSDT", some.bars_of(finer))
    put("AUSDT", finer[: 15 * 300], "1m")
    put("AUSDT", some.funding_of(some.bars_of(finer), 1), "funding", FUNDING)
    other = some.bars_of(some.minutes(2, 400, some.START_NS + 50 * some.INTERVAL_NS, 7.0))
    put("BUSDT", pl.concat([other[:100], other[110:200], other[201:]]))
    put("CUSDT", other[:60])
    put("DUSDT", some.bars_of(finer))
    put("DUSDT", finer.with_columns(pl.col("high") + 1), "1m")
    put("DUSDT", some.funding_of(some.bars_of(finer), 1)[:10], "funding", FUNDING)
    return root


@pytest.fixture(scope="module")
def made(lake, tmp_path_factory):
    """A backtest of two coins."""
    where = Where(lake, tmp_path_factory.mktemp("out"), run_id="r1")
    return where, backtest(where, config(coins=["B", "A/USDT"]))


def manifest(path: Path) -> dict:
    return json.loads((path / "manifest.json").read_text())


def test_the_folder_holds_all_that_was_promised(made):
    """Tables that meet their contracts, trades, charts, a page, a manifest; under the run's Hive keys."""
    where, result = made
    assert result.path.relative_to(where.out_root).as_posix() == (
        "grid/method=backtest/symbol=BUSDT-AUSDT/day=20240101..20240107/run=r1"
    )
    for table in GRID_TABLES:
        frame = table.check(pl.read_parquet(result.path / f"{table.name}.parquet", hive_partitioning=False))
        coins = {"AUSDT"} if table.name == "grid_flows" else {"AUSDT", "BUSDT"}
        assert set(frame["coin"]) - {"PORTFOLIO"} == coins
    names = {path.name for path in result.path.iterdir() if path.suffix in {".png", ".csv", ".html", ".json"}}
    charts = {f"{coin}_{what}.png" for coin in "AB" for what in ("equity", "trades", "close_up")}
    assert names == {*charts, "portfolio_equity.png", "A_trades.csv", "B_trades.csv", "report.html", "manifest.json"}
    rows = pl.read_csv(result.path / "A_trades.csv")
    assert rows.columns == ["bar", "timestamp", "datetime", "price", "qty", "label", "regime", "pnl"]
    assert rows.height == pl.read_parquet(result.path / "grid_fills.parquet").filter(coin="AUSDT").height > 50


def test_the_manifest_says_what_went_in(made, lake):
    """The whole specification, each input with its checksum, versions, timings, warnings."""
    where, result = made
    said = manifest(result.path)
    assert said["kind"] == "grid/backtest"
    assert said["spec"]["strategy"]["leverage"] == 3.0
    assert said["spec"]["backtest"]["coins"] == ["B", "A/USDT"]
    assert said["spec"]["tick_sizes"] == {"BUSDT": "0.01", "AUSDT": "0.01"}
    assert said["spec"]["capital_each"] == 5000.0
    parts = {(part["symbol"], part["interval"]): part["parts"] for part in said["inputs"]}
    assert set(parts) == {("AUSDT", "15m"), ("AUSDT", "funding"), ("BUSDT", "15m")}
    month = lake / "venue=binance-usdm/symbol=AUSDT/interval=15m/month=202401/bars/part-00000.parquet"
    assert parts["AUSDT", "15m"] == {"202401": sha256(month)}
    assert said["versions"]["mmlab"]
    assert {"simulate AUSDT", "simulate BUSDT"} <= set(said["timings_s"])
    assert said["warnings"] == result.warnings
    assert "label" not in said
    assert (where.out_root / "logs/grid/backtest/BUSDT-AUSDT/20240101..20240107/r1/run.log").exists()


def test_what_is_missing_is_told_with_its_times(made):
    """Gaps in the bars and no funding; nothing of the coin that is whole."""
    _, result = made
    assert result.warnings == [
        "BUSDT: 2 gaps in the candles, 11 missing: 2024-01-02 13:30 to 2024-01-02 16:00 (10); 2024-01-03 14:30 to "
        "2024-01-03 14:45 (1)",
        "BUSDT: no settlements from 2024-01-01 12:30 to 2024-01-05 16:30: funding counts as 0",
    ]


def test_the_figures_are_those_of_one_account_each(made, lake):
    """Half the capital a coin, and the sum of both accounts as the portfolio."""
    _, result = made
    figures = {(coin, metric): value for coin, metric, value, _ in result.metrics.iter_rows()}
    assert result.metrics["coin"].unique(maintain_order=True).to_list() == ["BUSDT", "AUSDT", "PORTFOLIO"]
    ends = [figures[coin, "final_capital"] for coin in ("BUSDT", "AUSDT", "PORTFOLIO")]
    assert ends[0] + ends[1] == pytest.approx(ends[2])
    alone = backtest_frames(lake, config(initial_capital=5000.0))
    assert alone["grid_equity"]["equity"][-1] == ends[1]
    stored = pl.read_parquet(result.path / "grid_metrics.parquet", hive_partitioning=False)
    assert stored.equals(result.metrics)


def backtest_frames(lake: Path, spec: Config) -> dict[str, pl.DataFrame]:
    """One coin's tables without a folder."""
    return run_coin(read_coin(lake, "AUSDT", spec.backtest), spec.params, spec)


def test_the_same_again_makes_the_same_bytes(made, lake, tmp_path):
    """Every table, CSV and chart; not the page and the manifest, which tell the time."""
    _, result = made
    again = backtest(Where(lake, tmp_path, run_id="r2"), config(coins=["B", "A"]))
    for path in sorted(result.path.iterdir()):
        if path.suffix not in {".json", ".html"}:
            assert path.read_bytes() == (again.path / path.name).read_bytes(), path.name


def test_the_page_is_one_file_with_its_figures_and_asks_for_nothing(made):
    """Images inside, no address, no script; the report command draws the same."""
    _, result = made
    text = (result.path / "report.html").read_text()
    assert text.count('src="data:image/png;base64,') == 7
    assert "http" not in text.replace("http-equiv", "")
    assert "<script" not in text
    assert "Grid backtest of B, A, 20240101..20240107" in text
    assert "PRUNE_" in text
    before = {path.name: path.read_bytes() for path in result.path.iterdir()}
    assert make_report(result.path) == result.path / "report.html"
    assert {path.name: path.read_bytes() for path in result.path.iterdir()} == before


def test_sql_sees_the_tables(made, lake):
    """Every view, with the run's keys."""
    where, _ = made
    con = connect(lake, where.out_root)
    for table in GRID_TABLES:
        ((count, kinds),) = run(con, f"SELECT count(*), list(DISTINCT kind || method || run) FROM {table.name}").rows()
        assert count > 0, table.name
        assert kinds == ["gridbacktestr1"]
    ((n,),) = run(con, "SELECT count(*) FROM grid_fills JOIN grid_orders USING (coin, order_id)").rows()
    assert n > 50


def test_without_charts_the_page_has_none(lake, tmp_path):
    """--no-plot."""
    result = backtest(Where(lake, tmp_path), config(), plot=False)
    assert not list(result.path.glob("*.png"))
    assert "<img" not in (result.path / "report.html").read_text()


def test_a_look_ahead_is_labelled_everywhere(lake, tmp_path):
    """Warnings, manifest, page, file names."""
    result = backtest(Where(lake, tmp_path), config(fills="peer"))
    assert result.label == LOOK_AHEAD
    assert result.warnings[0] == f"fills are peer: {LOOK_AHEAD}"
    assert manifest(result.path)["label"] == LOOK_AHEAD
    names = {path.name for path in result.path.iterdir() if path.suffix in {".png", ".csv"}}
    assert names == {"A_peer_trades.csv", "A_peer_trades.png", "A_peer_equity.png", "A_peer_close_up.png"}
    text = (result.path / "report.html").read_text()
    assert f"<h1>Grid backtest of A, 20240101..20240107 ({LOOK_AHEAD})</h1>" in text
    assert f'alt="A: equity ({LOOK_AHEAD})"' in text


def test_minutes_are_used_where_they_are(lake):
    """Half of the bars have them; a coin without any is told so."""
    read = read_coin(lake, "AUSDT", config(intrabar="1m").backtest)
    assert len(read.market.candles) == 300 * 15 + 300
    assert read.warnings == ["AUSDT: 1-minute candles make up 300 of 600 bars; the others are taken whole"]
    assert {part["interval"] for part in read.inputs} == {"15m", "1m", "funding"}
    none = read_coin(lake, "BUSDT", config(intrabar="1m").backtest)
    assert none.warnings[-1] == "BUSDT: no 1-minute candles in this span: --intrabar 1m changes nothing"
    with pytest.raises(TableError, match="DUSDT: the 1-minute bars of 2024-01-01 00:00 make"):
        read_coin(lake, "DUSDT", config(intrabar="1m").backtest)


def test_days_are_those_asked_for_the_last_one_too(lake):
    """And a span that the lake does not fill is told."""
    read = read_coin(lake, "AUSDT", config(start="2024-01-02", end="2024-01-04").backtest)
    assert read.bars["open_ns"][0] == some.START_NS + 96 * some.INTERVAL_NS
    assert read.bars.height == 3 * 96
    assert read.warnings == []
    wide = read_coin(lake, "AUSDT", config(start="2023-12-30", end="2024-02-01").backtest)
    assert wide.warnings[:2] == [
        "AUSDT: the candles begin at 2024-01-01 00:00, not on 2023-12-30",
        "AUSDT: the candles end at 2024-01-07 06:00, not on 2024-02-01",
    ]
    short = read_coin(lake, "DUSDT", config().backtest).warnings
    assert short == [
        "DUSDT: 1 gap in the settlements, 9 missing: 2024-01-04 00:00 to 2024-01-07 06:00 (9): "
        "funding counts as 0 there"
    ]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"coins": ["NOPE"]}, LakeError, "no 15m candles of NOPEUSDT"),
        ({"coins": ["A", "C"]}, UsageError, "CUSDT: 60 bars are too few"),
        ({"timeframe": "1h"}, LakeError, "no 1h candles of AUSDT"),
        ({"start": "2025-01-01"}, LakeError, "no 15m candles of AUSDT from 2025-01-01"),
        ({"venue": "nowhere"}, LakeError, "no 15m candles of AUSDT at nowhere"),
    ],
)
def test_a_fault_leaves_nothing_behind(lake, tmp_path, changes, error, message):
    """The message names the coin; no folder, no log."""
    with pytest.raises(error, match=message):
        backtest(Where(lake, tmp_path), config(**changes))
    assert not list(tmp_path.rglob("*"))


def test_a_run_is_never_overwritten(made, lake):
    """By its name."""
    where, _ = made
    with pytest.raises(UsageError, match="run r1 exists already"):
        backtest(where, config(coins=["B", "A"]))


def test_a_torn_month_is_named(lake, tmp_path):
    """Cut short after it was written."""
    root = tmp_path / "torn"
    bars = some.bars_of(some.minutes(1, 200))
    Candles(root).write(BARS, *PLACE, bars, replace=False, source={"file": "test"})
    part = next(root.rglob("part-*.parquet"))
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(LakeError, match=r"part-00000\.parquet"):
        backtest(Where(root, tmp_path / "out"), config())


def test_no_order_filled_is_told(lake, tmp_path):
    """An account too small."""
    result = backtest(Where(lake, tmp_path), config(initial_capital=1.0))
    assert "AUSDT: no order was filled" in result.warnings
    assert pl.read_csv(result.path / "A_trades.csv").is_empty()


@pytest.mark.parametrize(
    ("prices", "tick"),
    [([0.1, 7.3, 100.0], "0.1"), ([1.0, 3.0], "1"), ([42_283.58, 44_184.1], "0.01"), ([120.0, 150.0], "10"),
     ([2e4, 7e6], "10000"), ([0.00001234], "0.00000001"), ([1 / 3], "0.00000001"), ([1.05, 2.0], "0.01"),
     ([1e6, 3e7], "10000")],
)  # fmt: skip
def test_the_tick_is_the_coarsest_that_all_prices_lie_on(prices, tick):
    """A power of ten between 10,000 and 1e-8."""
    assert tick_of(pl.DataFrame(dict.fromkeys(("open", "high", "low", "close"), prices))) == tick


def test_many_coins_share_a_short_name():
    """A folder's name has an end."""
    assert together(["A", "B"]) == "A-B"
    assert together([f"C{i}" for i in range(9)]) == "C0-C1-C2-C3-C4-C5-and-3-more"


def test_a_config_is_read_from_its_file(tmp_path):
    """Or is missing, or no text."""
    path = tmp_path / "grid.toml"
    path.write_text("[strategy]\ngamma = 0.3\n")
    assert read_config(path).strategy.gamma == 0.3
    assert read_config(None) == Config()
    with pytest.raises(UsageError, match=r"absent\.toml is missing"):
        read_config(tmp_path / "absent.toml")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not text"):
        read_config(path)


def test_the_simulator_is_the_backtest_without_a_folder(made, lake):
    """One coin with all the capital, several with a part each, and what they are together."""
    _, result = made
    sim = BacktestSimulator(BUSY, {"start_date": "", "end_date": None}, data_root=str(lake))
    each = sim.run_multi(["B", "A/USDT"])
    assert list(each) == ["B", "A/USDT", "_portfolio"]
    whole = dict(result.metrics.filter(coin="PORTFOLIO").select("metric", "value").iter_rows())
    assert each["_portfolio"]["metrics"] == whole
    assert each["_portfolio"].equity_curve[-1] == whole["final_capital"]
    assert len(each["_portfolio"].open_ns) == 600
    one = sim.run_single("A", end="2024-01-05")
    assert one.equity_curve.shape == (5 * 96,)
    assert one.params.initial_capital == 10_000.0
    assert one.venue.tick_size == "0.01"
    assert sim.run_single("B").warnings[0].startswith("BUSDT: 2 gaps")
    swept = sim.sweep("A", end="2024-01-05", gamma=[sim.config.params.gamma, 3.0])
    assert swept.row(0, named=True)["total_return_pct"] == one.metrics["total_return_pct"]
    assert swept.columns[0] == "gamma"
    assert sim.frame("A").columns == ["timestamp", "open", "high", "low", "close", "volume"]
    assert len(sim.market("A", start="2024-01-02")) == 504
    with pytest.raises(KeyError):
        each["_portfolio"]["nothing"]
    with pytest.raises(UsageError, match="backtest_config: unknown starts"):
        BacktestSimulator(backtest_config={"starts": "2024-01-01"})


def test_lookahead_reads_every_coin(lake):
    """One finding a coin."""
    found = check_lookahead(lake, config(coins=["A", "B"]), 3, 0)
    assert {symbol: finding.ok for symbol, finding in found.items()} == {"AUSDT": True, "BUSDT": True}
    assert not check_lookahead(lake, config(fills="peer"), 3, 0)["AUSDT"].ok


EARLIER = {  # what the strategy's earlier form was fitted to, on an engine that looked ahead
    "adx_trend_threshold": 31.1022, "regime_threshold": 0.0500612, "er_trend_threshold": 0.679668,
    "regime_hysteresis_bars": 2, "grid_spacing_k": 1.22717, "grid_levels": 7, "spacing_floor": 0.00426233,
    "order_pct": 0.07, "regen_drift_mult": 1.05983, "adaptive_floor_scale": 0.662188, "tp_concentration": 0.818051,
    "gamma": 0.470663, "kappa": 2.50071, "max_inventory_per_side": 3, "as_time_horizon": 279.043,
    "trailing_enabled": False, "deviance_sigma": 3.4064, "gap_prune_mult": 3.0014, "funding_cost_ratio": 0.400804,
    "offset_prune_ratio": 4.77626, "prune_cooldown_bars": 24, "max_drawdown_pct": 0.163156, "atr_sl_mult": 3.13,
    "max_position_pct": 0.600191, "initial_capital": 300.0, "leverage": 6.0, "stop_cooldown_bars": 85,
    "low_volume_threshold": 0.439733, "funding_harvest_threshold": 3.69e-4, "kelly_window": 48,
}  # fmt: skip


@pytest.mark.skipif(not (DATA / "BTCUSDT_usdm_15m.parquet").exists(), reason=f"the real candles are not in {DATA}")
def test_the_published_parameters_gain_by_looking_ahead_and_lose_without(tmp_path):
    """BTC in 2024 with the real funding: the same parameters, and only the rule that fills their orders differs."""
    lake = Candles(tmp_path)
    times = (pl.col("timestamp") * 1_000_000).alias("t")
    bars = pl.read_parquet(DATA / "BTCUSDT_usdm_15m.parquet").with_columns(times).rename({"t": "open_ns"})
    bars = BARS.conform(bars.with_columns(buy_volume=pl.lit(None), n_trades=pl.lit(None)))
    rates = pl.read_parquet(DATA / "BTCUSDT_usdm_funding.parquet").with_columns(times)
    year = pl.col("open_ns").is_between(1_704_067_200_000_000_000, 1_735_689_599_999_999_999)
    lake.write(BARS, "binance-usdm", "BTCUSDT", "15m", bars.filter(year), replace=False, source={})
    settled = FUNDING.conform(rates.rename({"t": "ts_ns", "fundingRate": "rate"}))
    lake.write(FUNDING, "binance-usdm", "BTCUSDT", "funding", settled, replace=False, source={})
    returns = {}
    for fills in ("next-bar", "touch-through", "peer"):
        spec = Config().with_values({**EARLIER, "end": "2024-12-31", "fills": fills}, "test")
        read = read_coin(tmp_path, "BTCUSDT", spec.backtest)
        assert read.warnings == []
        assert (read.tick_size, read.bars.height) == ("0.1", 35_136)
        frames = run_coin(read, spec.params, spec)
        metrics = figures_of({"BTCUSDT": frames}, 300.0, read.interval_ns)
        returns[fills] = metrics.filter(metric="total_return_pct")["value"][0]
    assert returns["peer"] > 30
    assert returns["next-bar"] < -5
    assert returns["touch-through"] < returns["next-bar"] + 1
