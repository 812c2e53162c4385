"""One span's calibration from the lake: days as one tape, probes and paper orders side by side, holes, wrong flags."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mmlab.calib.run import Tape, chosen, ladder
from mmlab.calib.spec import AutoDeltas, FitSpec, ProbeSpec
from mmlab.core import schemas
from mmlab.core.errors import DataError, LakeError, UsageError
from mmlab.core.spans import NS_PER_DAY, NS_PER_MIN, NS_PER_MS, NS_PER_S, Days, day_start_ns
from mmlab.flows.calibrate import CalibrateSpec, LadderResult, calibrate_fixed, calibrate_ladder
from mmlab.flows.own_orders import PaperSpec, calibrate_paper
from mmlab.flows.run import Job
from mmlab.store.lake import Lake
from mmlab.store.runs import read_json, read_table
from mmlab.tape.synth import chunks
from mmlab.tape.synth_spec import SynthSpec

DAY = "20250101"
BOTH_DAYS = "20250101..20250102"
START = day_start_ns(date(2025, 1, 1))
MIDNIGHT = START + NS_PER_DAY
CELLS = ("side", "delta_ticks", "exposure_ns", "fills_total")
ONE_LOT = 0.00001
NUMBERS = itertools.count()
DELTAS = (1, 2, 3, 5, 8)
Market = tuple[pl.DataFrame, pl.DataFrame]


def market(spec: SynthSpec) -> Market:
    """A seeded market's depth and trades."""
    depth, trades = (pl.concat(parts) for parts in zip(*chunks(spec), strict=True))
    return depth, trades


def write(root: Path, spec: SynthSpec, depth: pl.DataFrame, trades: pl.DataFrame, *holes: tuple[int, int, str]) -> None:
    """Put a market into the lake, with declared holes (from, to, stream), each in the day in which it starts."""
    writer = Lake(root / "data").writer(spec.instrument, levels=spec.levels, replace=True, created_by={})
    gaps = pl.DataFrame(
        [
            {"from_ns": a, "to_ns": b, "run_id": 1, "stream": stream, "first_missing": None, "last_missing": None,
             "reason": "test"}
            for a, b, stream in holes
        ],
        schema=schemas.GAPS.schema,
    )  # fmt: skip
    with writer:
        writer.append(schemas.depth(spec.levels), depth)
        writer.append(schemas.TRADES, trades)
        writer.append(schemas.GAPS, gaps)
        writer.commit()


def job(root: Path, symbol: str, run_id: str, day: str = DAY, out: Path | None = None) -> Job:
    return Job(symbol, Days.parse(day), data_root=root / "data", out_root=out or root / "out", run_id=run_id)


def concatenated(root: Path, symbol: str, day: str) -> Tape:
    """The whole tape of several days, read at once."""
    lake = Lake(root / "data")
    refs = lake.find(symbol, Days.parse(day))
    frames = (lake.read(refs, t, t.schema.names()) for t in (schemas.depth(1), schemas.TRADES, schemas.GAPS))
    return Tape.of(*frames, lake.instrument(refs))


def read(path: Path, table: schemas.Table) -> pl.DataFrame:
    frame = read_table(path, table)
    assert frame is not None
    return frame


LONG = SynthSpec(symbol="LONG", hours=24.5, frame_ms=5000, A=0.5, k=0.3, prints_per_s=0.8, mid_moves_per_s=0.1,
                 levels=1, seed=3)  # fmt: skip
HOLE = (MIDNIGHT - 17 * NS_PER_MIN - 1, MIDNIGHT + 11 * NS_PER_MIN, "trade")
SHORT = SynthSpec(symbol="SHORT", hours=0.5, frame_ms=500, levels=1, seed=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LONG goes over midnight; HOLE is the same with a declared hole over midnight; SHORT is half an hour."""
    path = tmp_path_factory.mktemp("calibrate")
    depth, trades = market(LONG)
    write(path, LONG, depth, trades)
    inside = pl.col("recv_ns").is_between(HOLE[0] + 1, HOLE[1], closed="left")
    write(path, replace(LONG, symbol="HOLE"), depth, trades, HOLE)
    write(path, replace(LONG, symbol="BARE"), depth, trades.filter(~inside), HOLE)
    write(path, SHORT, *market(SHORT))
    return path


# ---- two days


@pytest.mark.parametrize("fixed", [False, True], ids=["ladder", "fixed"])
@pytest.mark.parametrize(
    "spec",
    [
        CalibrateSpec(ProbeSpec(), FitSpec("nested_mle")),
        CalibrateSpec(ProbeSpec((1, 2, 5), 7_000_000, 0.0, "sweeps"), FitSpec()),
        CalibrateSpec(ProbeSpec(cycle=True, count="all_hits"), FitSpec("log_linear")),
    ],
    ids=["first_hit", "over midnight", "cycle"],
)
@pytest.mark.parametrize("symbol", ["LONG", "HOLE"])
def test_two_days_are_one_tape(root, tmp_path, symbol, spec, fixed):
    """Points, fits and curves of days that are read one by one are those of the days concatenated."""
    flow = calibrate_fixed if fixed else calibrate_ladder
    made = flow(job(root, symbol, "r", BOTH_DAYS, tmp_path), spec)
    whole = ladder(concatenated(root, symbol, BOTH_DAYS), spec.probes, spec.fit)
    assert made.points.equals(whole.points)
    assert made.fits.equals(whole.fits)
    for table, frame in ((schemas.POINTS, whole.points), (schemas.FITS, whole.fits), (schemas.CURVES, whole.curves)):
        assert read(made.path, table).equals(frame), table.name
    method = "fixed" if fixed else "ladder"
    assert made.path == tmp_path / f"calibration/method={method}/symbol={symbol}/day={BOTH_DAYS}/run=r"
    assert [each["day"] for each in read_json(made.path / "manifest.json")["inputs"]] == ["20250101", "20250102"]


def test_the_artifact_says_what_was_fitted(root, tmp_path):
    """poisson_fit.json has both sides' exponential, its intervals, and how it was measured."""
    made = calibrate_ladder(job(root, "LONG", "r", BOTH_DAYS, tmp_path), CalibrateSpec(ProbeSpec(), FitSpec()))
    fit = read_json(made.path / "poisson_fit.json")
    row = made.fits.row(by_predicate=(pl.col("side") == "both") & (pl.col("family") == "exponential"), named=True)
    assert (fit["A"], fit["k"], fit["ok"]) == (row["A"], row["k"], True)
    assert fit["k_interval95"] == [row["k_low"], row["k_high"]]
    assert fit["A_interval95_robust"] == [row["A_low_robust"], row["A_high_robust"]]
    assert (fit["method"], fit["count"], fit["deltas"]) == ("ladder", "first_hit", [1, 2, 3, 5, 8, 13])
    assert row["A"] == pytest.approx(0.5, rel=0.1)
    assert row["k"] == pytest.approx(0.3, rel=0.1)


def test_automatic_distances_of_a_range_come_from_its_first_day(root, tmp_path):
    """They are in the manifest, with what was asked for."""
    spec = CalibrateSpec(ProbeSpec(), FitSpec(), auto=AutoDeltas(5, 40))
    made = calibrate_ladder(job(root, "LONG", "r", BOTH_DAYS, tmp_path), spec)
    wanted = list(chosen(spec.probes, AutoDeltas(5, 40), concatenated(root, "LONG", DAY)).deltas)
    manifest = read_json(made.path / "manifest.json")
    assert manifest["spec"]["deltas"] == wanted
    assert manifest["spec"]["deltas_auto"] == {"count": 5, "max_delta_ticks": 40}
    assert made.points["delta_ticks"].unique().sort().to_list() == wanted


# ---- holes


def test_time_in_a_declared_hole_is_no_exposure(root, tmp_path):
    """28 minutes over midnight without prints: the exposure is less by them, and prints in the hole do not count."""
    spec = CalibrateSpec(ProbeSpec(), FitSpec())
    whole, holed, bare = (
        calibrate_ladder(job(root, symbol, "r", BOTH_DAYS, tmp_path), spec) for symbol in ("LONG", "HOLE", "BARE")
    )
    lost = whole.fits["exposure_s"][0] - holed.fits["exposure_s"][0]
    assert lost == pytest.approx((HOLE[1] - HOLE[0]) / NS_PER_S, abs=LONG.frame_ms / 1000)
    assert whole.points["fills_total"].sum() > holed.points["fills_total"].sum()
    assert bare.points.equals(holed.points)
    assert bare.fits.equals(holed.fits)


@pytest.mark.parametrize("flow", ["virtual", "paper"])
def test_a_hole_costs_paper_orders_and_probes_the_same(tmp_path, flow):
    """In a minute's hole neither prints nor time count; what a paper order does in it is not known either."""
    a, b = START + 10 * NS_PER_MIN, START + 11 * NS_PER_MIN
    depth, trades = market(SHORT)
    write(tmp_path / "holed", SHORT, depth, trades, (a, b, "trade"))
    inside = pl.col("recv_ns").is_between(a, b, closed="none")
    write(tmp_path / "bare", SHORT, depth, trades.filter(~inside), (a, b, "trade"))
    write(tmp_path / "whole", SHORT, depth, trades)
    whole, holed, bare = (made(flow, tmp_path / name, "SHORT") for name in ("whole", "holed", "bare"))
    times = [each.points.filter(pl.col("side") == "bid")["exposure_ns"] for each in (whole, holed)]
    lost = (times[0] - times[1]).to_numpy() / NS_PER_S
    assert (lost > 0).all()
    assert lost.max() <= 60 + 1.0
    if flow == "virtual":
        assert bare.points.equals(holed.points)
    else:  # an order that was filled in the hole is laid anew in it
        assert (holed.points["fills_total"] - bare.points["fills_total"]).abs().max() <= 1


# ---- quotes at a fixed distance


def cells(result: LadderResult) -> pl.DataFrame:
    return result.points.select(CELLS)


def made(
    engine: str, root: Path, symbol: str, every_ms: int = 1000, reach: str = "touch", qty: float = ONE_LOT,
    deltas: tuple[int, ...] = DELTAS,
) -> LadderResult:  # fmt: skip
    """`calibrate fixed` by either engine; paper orders without latencies."""
    spec = CalibrateSpec(ProbeSpec(deltas, every_ms, 0.0, reach=reach), FitSpec())
    given = job(root, symbol, f"{engine}-{next(NUMBERS)}")
    if engine == "virtual":
        return calibrate_fixed(given, spec)
    return calibrate_paper(given, spec, PaperSpec(every_ms, qty, 0, 0))


def by_hand(depth: pl.DataFrame, trades: pl.DataFrame, every_ns: int, tick: float) -> dict[tuple[str, int], list[int]]:
    """Exposure and first hits of a quote at each side and distance, laid anew every so often, one by one."""
    frames = [
        (t, seq, (round(bid / tick) + round(ask / tick)) / 2)
        for t, seq, bid, ask in depth.select("recv_ns", "recv_seq", "bid_px_1", "ask_px_1").iter_rows()
    ]
    laid = [frames[0]]
    for frame in frames:
        if frame[0] - laid[-1][0] >= every_ns:
            laid.append(frame)
    ends = [*laid[1:], frames[-1]]
    prints = [(t, seq, round(price / tick)) for t, seq, price in trades["recv_ns", "recv_seq", "price"].iter_rows()]
    found = {(side, delta): [0, 0] for side in ("bid", "ask") for delta in DELTAS}
    first = 0
    for (start, start_seq, mid), (end, end_seq, _) in zip(laid, ends, strict=True):
        while first < len(prints) and prints[first][:2] < (start, start_seq):
            first += 1
        own, n = [], first
        while n < len(prints) and prints[n][:2] < (end, end_seq):
            own.append(prints[n])
            n += 1
        for (side, delta), sums in found.items():
            low = [t for t, _, price in own if (price <= mid - delta if side == "bid" else price >= mid + delta)]
            sums[0] += (low[0] if low else end) - start
            sums[1] += bool(low)
    return found


@pytest.mark.parametrize("every_ms", [500, 1700])
def test_probes_that_follow_the_mid_count_what_a_loop_counts(root, every_ms):
    """Exposure and hits, to the nanosecond, of every side and distance."""
    result = made("virtual", root, "SHORT", every_ms)
    wanted = by_hand(*market(SHORT), every_ms * NS_PER_MS, 0.01)
    assert {(side, int(d)): [t, n] for side, d, t, n in cells(result).iter_rows() if side != "both"} == wanted
    assert min(n for _, n in wanted.values()) > 20


SEEDS = range(6)


def odd_market(seed: int) -> tuple[SynthSpec, Market]:
    """A market of its own frame rate and jumps, in which the mid is often on a half tick; its last event is a frame."""
    rng = np.random.default_rng(seed)
    spec = SynthSpec(
        symbol=f"ODD{seed}", hours=0.15, seed=seed, frame_ms=int(rng.choice([100, 200, 500])), levels=1,
        mid_jump_ticks=int(rng.integers(1, 4)), mid_moves_per_s=float(rng.choice([0.0, 0.5, 1.5])),
        k=float(rng.choice([0.15, 0.4])),
    )  # fmt: skip
    depth, trades = market(spec)
    wider = pl.Series(rng.integers(0, 3, depth.height) * 0.01)
    higher = pl.Series(rng.random(depth.height) < 0.5)
    depth = depth.with_columns(
        ask_px_1=pl.when(higher).then((pl.col("ask_px_1") + wider).round(2)).otherwise("ask_px_1"),
        bid_px_1=pl.when(higher).then("bid_px_1").otherwise((pl.col("bid_px_1") - wider).round(2)),
    )
    return spec, (depth, trades.filter(pl.col("recv_ns") < depth["recv_ns"][-1]))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All odd markets in one lake."""
    path = tmp_path_factory.mktemp("odd")
    for seed in SEEDS:
        spec, (depth, trades) = odd_market(seed)
        write(path, spec, depth, trades)
    return path


@pytest.mark.parametrize("seed", SEEDS)
def test_paper_orders_without_latency_are_the_virtual_probes(odd, seed):
    """One lot each, one epoch, no hole, no print after the last frame: hits and exposure are equal to the nanosecond.

    An order that is kept at its price over a re-quote goes on as the next probe does, and one that was
    filled is sent again with the next re-quote, when a probe is laid anew too.
    """
    for every_ms, reach in ((200, "touch"), (1000, "through"), (5500, "touch")):
        virtual, paper = (made(engine, odd, f"ODD{seed}", every_ms, reach) for engine in ("virtual", "paper"))
        assert cells(paper).equals(cells(virtual)), (every_ms, reach)
        assert cells(paper)["fills_total"].sum() > 100
        fits = [
            each.fits.filter((pl.col("family") == "exponential") & (pl.col("side") == "both")).row(0, named=True)
            for each in (virtual, paper)
        ]
        assert fits[0]["A"] == pytest.approx(fits[1]["A"], rel=1e-9)
        assert fits[0]["k"] == pytest.approx(fits[1]["k"], rel=1e-9)


def test_after_the_last_frame_paper_orders_live_to_the_last_print(tmp_path):
    """Probes end at the last frame, orders at the last event: they differ by that stretch, and by a hit in it."""
    spec = replace(SHORT, hours=0.1)
    depth, trades = market(spec)
    depth = depth.head(-4)
    write(tmp_path, spec, depth, trades)
    tail = int(trades["recv_ns"][-1] - depth["recv_ns"][-1])
    assert 500 * NS_PER_MS < tail < 2500 * NS_PER_MS
    virtual, paper = (
        cells(made(engine, tmp_path, "SHORT")).filter(pl.col("side") != "both") for engine in ("virtual", "paper")
    )
    more = (paper["exposure_ns"] - virtual["exposure_ns"]).to_numpy()
    hits = (paper["fills_total"] - virtual["fills_total"]).to_numpy()
    assert ((more >= 0) & (more <= tail)).all()
    assert set(hits.tolist()) <= {0, 1}
    assert more.max() == tail
    assert ((more == tail) | (hits == 1) | (more == 0)).all()


def test_a_hole_without_frames_or_prints_ends_at_a_frame_for_both_engines(tmp_path):
    """A recorder's gap, longer than a re-quote: hits and exposure stay equal to the nanosecond."""
    spec = replace(SHORT, hours=0.2)
    depth, trades = market(spec)
    a, b = (int(depth["recv_ns"][n]) for n in (400, 520))
    outside = ~pl.col("recv_ns").is_between(a, b, closed="none") & (pl.col("recv_ns") < depth["recv_ns"][-1])
    last = depth.tail(1)
    write(tmp_path, spec, pl.concat([depth.filter(outside), last]), trades.filter(outside), (a, b, "depth"))
    virtual, paper = (made(engine, tmp_path, "SHORT") for engine in ("virtual", "paper"))
    assert cells(paper).equals(cells(virtual))
    covered = virtual.fits["exposure_s"][0]
    assert covered == pytest.approx((last["recv_ns"][0] - START - (b - a)) / NS_PER_S, abs=1e-9)


def test_an_order_that_is_filled_in_part_stands_on_and_is_not_counted(odd):
    """Orders larger than a print: what paper counts is a part of what the probes count, at the same rate."""
    virtual, paper = (made(engine, odd, "ODD1", 1000, qty=qty) for engine, qty in (("virtual", 1e-5), ("paper", 0.01)))
    ours, theirs = cells(paper), cells(virtual)
    for name in ("exposure_ns", "fills_total"):
        assert (ours[name] <= theirs[name]).all()
        assert ours[name].sum() < theirs[name].sum()
    near = ours["delta_ticks"] <= 3
    for mine, other in zip(ours.filter(near).iter_rows(), theirs.filter(near).iter_rows(), strict=True):
        assert mine[3] / mine[2] == pytest.approx(other[3] / other[2], rel=4 / math.sqrt(mine[3]))


def test_the_time_that_paper_orders_covered_is_no_longer_than_the_tape(odd):
    """`exposure_s` is the time covered on one side, whatever the number of distances."""
    result = made("paper", odd, "ODD2")
    assert result.fits["exposure_s"].max() <= 0.15 * 3600


def test_the_manifest_says_how_paper_orders_were_sent(odd):
    """Engine, re-quotes, size, latencies; the artifact is a fixed one."""
    result = made("paper", odd, "ODD3", 5500)
    spec = read_json(result.path / "manifest.json")["spec"]
    assert (spec["method"], spec["engine"]) == ("fixed", "paper")
    assert spec["paper"] == asdict(PaperSpec(5500, ONE_LOT, 0, 0))
    assert read_json(result.path / "poisson_fit.json")["method"] == "fixed"


def test_latencies_cost_orders_and_leave_the_rate(tmp_path):
    """On a mid that stands still an order is where it was meant to be, however late: the truth is within 4 errors."""
    spec = SynthSpec(symbol="STILL", hours=0.5, frame_ms=500, levels=1, seed=8, mid_moves_per_s=0.0)
    write(tmp_path, spec, *market(spec))
    probes = CalibrateSpec(ProbeSpec(DELTAS, 1000, 0.0), FitSpec())
    result = calibrate_paper(job(tmp_path, "STILL", "late"), probes, PaperSpec(1000, ONE_LOT, 300, 200))
    for delta, hits, exposure in result.points.filter(pl.col("side") == "both")[
        "delta_ticks", "fills_total", "exposure_s_total"
    ].iter_rows():
        expected = spec.A * math.exp(-spec.k * delta) * exposure
        assert abs(hits - expected) < 4 * math.sqrt(expected)
        assert hits > 100


# ---- one distance at a time


def test_cycled_distances_share_the_time(root, tmp_path):
    """At each moment one distance has a probe: the exposures of a side add up to the time covered."""
    spec = CalibrateSpec(ProbeSpec(count="all_hits", cycle=True, dwell_ms=10_000), FitSpec())
    result = calibrate_ladder(job(root, "SHORT", "cycle", out=tmp_path), spec)
    for side in ("bid", "ask"):
        own = result.points.filter(pl.col("side") == side)
        assert own["exposure_ns"].sum() / NS_PER_S == pytest.approx(result.fits["exposure_s"][0], abs=1e-9)
        assert own["exposure_ns"].min() > 0
        assert (own["ring_fills"] == own["fills_total"]).all()
    assert read_json(result.path / "manifest.json")["spec"]["cycle"] is True


def test_cycled_distances_find_the_truth(root, tmp_path):
    """Whatever they share no longer, (A, k) is within 4 of its own errors."""
    spec = CalibrateSpec(ProbeSpec(cycle=True), FitSpec())
    result = calibrate_ladder(job(root, "LONG", "cycle", BOTH_DAYS, tmp_path), spec)
    row = result.fits.row(by_predicate=(pl.col("side") == "both") & (pl.col("family") == "exponential"), named=True)
    assert abs(math.log(row["A"] / LONG.A)) < 4 * row["se_log_A"]
    assert abs(row["k"] - LONG.k) < 4 * row["se_k"]


# ---- faults


def files(out: Path) -> list[Path]:
    """What lies in the outputs, but for the logs."""
    return [p for p in out.rglob("*") if p.is_file() and "logs" not in p.parts]


PAPER = PaperSpec(250, ONE_LOT, 0, 0)
PLAIN = CalibrateSpec(ProbeSpec(), FitSpec())
FAULTS: dict[str, tuple[Callable[[Job], LadderResult], str, str]] = {
    "nested and cycle": (
        lambda j: calibrate_ladder(j, CalibrateSpec(ProbeSpec(cycle=True), FitSpec("nested_mle"))),
        "--fit-method nested_mle is for probes that stand at all distances at once, not with --cycle",
        "poisson_mle",
    ),
    "paper sweeps": (
        lambda j: calibrate_paper(j, CalibrateSpec(ProbeSpec(count="sweeps"), FitSpec()), PAPER),
        "--engine paper sends real orders",
        "--count",
    ),
    "paper taker side": (
        lambda j: calibrate_paper(j, CalibrateSpec(ProbeSpec(taker_side=True), FitSpec()), PAPER),
        "--engine paper sends real orders",
        "--taker-side",
    ),
    "paper auto": (
        lambda j: calibrate_paper(j, replace(PLAIN, auto=AutoDeltas()), PAPER),
        "--engine paper sends real orders",
        "--deltas",
    ),
    "paper nested": (
        lambda j: calibrate_paper(j, CalibrateSpec(ProbeSpec((1, 2)), FitSpec("nested_mle")), PAPER),
        "--fit-method nested_mle is for probes that stand at all distances at once, not for orders",
        "poisson_mle",
    ),
    "paper quantity": (lambda j: calibrate_paper(j, PLAIN, replace(PAPER, qty=0.0)), "--qty is 0", "above 0"),
    "paper lot": (lambda j: calibrate_paper(j, PLAIN, replace(PAPER, qty=1e-9)), "--qty 1e-09 is less", "--qty"),
    "paper latency": (
        lambda j: calibrate_paper(j, PLAIN, replace(PAPER, cancel_latency_ms=-1)),
        "--cancel-latency-ms is -1",
        "0 or more",
    ),
    "log level": (lambda j: calibrate_ladder(replace(j, log_level="LOUD"), PLAIN), "LOG_LEVEL is 'LOUD'", "INFO"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_names_the_flag_and_the_remedy_and_writes_nothing(root, tmp_path, name):
    """Exit code 2, and no half run."""
    run, message, remedy = FAULTS[name]
    with pytest.raises(UsageError) as caught:
        run(job(root, "SHORT", "r", out=tmp_path))
    assert message in caught.value.message
    assert remedy in caught.value.remedy
    assert files(tmp_path) == []


def test_an_estimator_that_orders_do_not_allow_is_refused_before_the_work(root, tmp_path):
    """No backtest is run for it."""
    shown: list[str] = []
    spec = CalibrateSpec(ProbeSpec((1, 2)), FitSpec("nested_mle"))
    with pytest.raises(UsageError):
        calibrate_paper(job(root, "SHORT", "r", out=tmp_path), spec, PAPER, lambda what, *_: shown.append(what))
    assert shown == []


def silent(root: Path, days: int) -> None:
    """A lake of days without a print."""
    for n in range(days):
        spec = SynthSpec(symbol="MUTE", day=date(2025, 1, 1 + n), hours=0.2, frame_ms=1000, levels=1)
        depth, trades = market(spec)
        write(root, spec, depth, trades.clear())


def test_a_day_without_a_print_is_told(tmp_path):
    """There is a book and nothing traded: no curve, and no run."""
    silent(tmp_path, 1)
    with pytest.raises(LakeError, match="table 'trades' of MUTE 20250101 is empty"):
        calibrate_ladder(job(tmp_path, "MUTE", "r"), PLAIN)
    assert files(tmp_path / "out") == []


def test_days_without_a_print_are_told(tmp_path):
    """The same for a range, of which no day has one."""
    silent(tmp_path, 2)
    with pytest.raises(LakeError, match="empty"):
        calibrate_ladder(job(tmp_path, "MUTE", "r", BOTH_DAYS), PLAIN)


def test_days_without_a_book_are_told(root, tmp_path):
    """Prints alone hit nothing."""
    shutil.copytree(root / "data", tmp_path / "data")
    for manifest in tmp_path.glob("data/venue=*/symbol=LONG/day=*/manifest.json"):
        manifest.write_text(manifest.read_text().replace('"depth": [', '"events": ['))
    for flow in (calibrate_ladder, calibrate_fixed):
        with pytest.raises(DataError, match="there are no book frames"):
            flow(job(tmp_path, "LONG", "r", BOTH_DAYS), PLAIN)
    assert files(tmp_path / "out") == []


def test_a_paper_run_without_a_curve_names_no_flag_that_it_refuses(root, tmp_path):
    """Listed distances are all that it takes."""
    spec = CalibrateSpec(ProbeSpec((3,), 1000, 0.0), FitSpec())
    result = calibrate_paper(job(root, "SHORT", "r", out=tmp_path), spec, PAPER)
    assert result.warnings
    assert "--deltas auto" not in " ".join(result.warnings)


def test_a_curve_that_the_data_do_not_hold_is_none(root, tmp_path):
    """Too little exposure: A and k are null, the warning says why, and the points are there all the same."""
    spec = CalibrateSpec(ProbeSpec(), FitSpec(min_exposure_s=1e6))
    result = calibrate_ladder(job(root, "SHORT", "r", out=tmp_path), spec)
    fit = read_json(result.path / "poisson_fit.json")
    assert (fit["A"], fit["k"], fit["ok"], fit["A_interval95"]) == (None, None, False, None)
    assert result.warnings == [
        "no curve: fewer than two distances with enough exposure; poisson_fit.json has A and k null (try --deltas auto)"
    ]
    assert result.points.height == 18
