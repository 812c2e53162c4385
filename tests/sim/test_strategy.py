"""Strategies of the user's own: compiled or not they say the same, and what they do wrong is told with its line."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmlab.core.errors import UsageError
from mmlab.flows.strategy_file import load
from mmlab.sim.run import Result, run
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from mmlab.sim.strategy import Strategy, View
from reference.backtest import Market, Twin
from reference.markets import START, TABLES, assert_same, busy, cases, intensity, still, tape

FILE = '''
import math

HALF = 2.0


def fixed(view):
    return view.mid - HALF * view.tick_size, view.mid + HALF * view.tick_size


def lean(view):
    """Momentum in memory, a lean by inventory, one side only now and then, sizes of its own."""
    view.memory[0] = 0.7 * view.memory[0] + 0.3 * (view.mid - view.memory[1] if view.memory[1] > 0.0 else 0.0)
    view.memory[1] = view.mid
    view.memory[2] += 1.0
    centre = view.mid + view.memory[0] - view.inventory / view.qty * view.tick_size
    half = 1.5 * view.tick_size
    if not math.isnan(view.sigma):
        half += 0.1 * view.sigma
    if not math.isnan(view.k):
        half += 0.3 * view.tick_size / view.k
    bid, ask = centre - half, centre + half
    if view.memory[2] % 7.0 == 0.0:
        bid = math.nan
    if view.cash < 0.0 or view.bid_qty > 2.0 * view.ask_qty:
        return bid, ask, view.qty, 0.5 * view.qty
    return bid, ask, 2.0 * view.qty, view.qty


def once(view):
    view.memory[0] += 1.0
    return view.bid if view.memory[0] == 1.0 else math.nan, math.nan


seen = []


def in_python(view):
    """A global list and a dict of mixed values are Python's own."""
    seen.append({"t": view.t_ns, "view": view})
    return [view.bid, view.ask]


def with_default(view, half=0.02):
    return view.mid - half, view.mid + half


def text(view):
    return float(f"{view.bid:.2f}"), view.ask


class Quoter:
    def __init__(self):
        self.calls = 0

    def __call__(self, view):
        self.calls += 1
        return view.bid, view.ask


quoter = Quoter()


def divides(view):
    return 1.0 / (view.inventory - view.inventory), view.ask


def divides_in_python(view):
    seen.append(1)
    return 1.0 / (view.inventory - view.inventory), view.ask


def beyond_memory(view):
    view.memory[64] = 1.0
    return view.bid, view.ask


def too_much(view):
    return view.bid, view.ask, 1e12, 1e12


def nothing(view):
    return None


def three(view):
    return view.bid, view.mid, view.ask


def words(view):
    return "buy", "sell"


def half_a_pair(view):
    return view.bid, None


def two_views(view, other):
    return view.bid, other.ask


def endless(view):
    return -math.inf, math.inf
'''


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("strategies") / "mine.py"
    file.write_text(FILE)
    return file


@pytest.fixture(scope="module")
def lean(path: Path) -> Strategy:
    return load(f"{path}:lean")


def interpreted(strategy: Strategy) -> Strategy:
    return Strategy(strategy.name, strategy.sha256, strategy.function, None)


def users(spec: BacktestSpec, **quote: object) -> BacktestSpec:
    return replace(spec, quote=QuoteSpec("strategy", strategy="mine.py:it", sigma_window_s=2, **quote))


def simulate(market: Market, spec: BacktestSpec, strategy: Strategy | None, **options: object) -> Result:
    return run(tape(market), spec, intensity(market), strategy=strategy, **options)


MARGIN = BacktestSpec(qty=0.005, account="margin", entry_latency_ms=30, cancel_latency_ms=60, requote_interval_ms=50)


@settings(max_examples=40, deadline=None)
@given(case=cases(), levels=st.sampled_from([1, 1, 3]))
def test_every_row_equals_the_slow_twins_compiled_and_not(case, levels, lean):
    market, spec = case
    spec = users(spec, levels=levels, level_step_ticks=1.5)
    assert lean.compiled is not None
    got = simulate(market, spec, lean)
    assert_same(Twin(market, spec, strategy=lean.function).run(), got)
    assert_same(simulate(market, spec, interpreted(lean)), got)
    assert_same(simulate(market, spec, lean, buffer_rows=1), got)


@pytest.mark.parametrize("fill", [FillSpec(reach="queue"), FillSpec("hybrid"), FillSpec("price_cross", book_levels=2)])
def test_a_busy_market_equals_the_slow_twin_and_trades(fill, lean):
    spec = users(replace(MARGIN, fill=fill, response_latency_ms=90, feed_latency="recorded", max_inventory=0.03))
    market = busy(0, 500)
    got = simulate(market, spec, lean)
    assert got.fills.height > 5
    assert_same(Twin(market, spec, strategy=lean.function).run(), got)
    assert_same(simulate(market, spec, interpreted(lean)), got)
    assert_same(simulate(market, spec, lean), got)  # its memory is its own in each run


def test_one_that_quotes_a_fixed_spread_gives_its_rows(path):
    spec = replace(MARGIN, quote=QuoteSpec("fixed_spread", half_spread_ticks=2.0, levels=2))
    strategy = load(f"{path}:fixed")
    assert strategy.compiled is not None
    for seed in (0, 1):
        built_in = simulate(busy(seed), spec, None)
        assert_same(simulate(busy(seed), users(spec, levels=2), strategy), built_in)
        assert built_in.fills.height > 10


@settings(max_examples=40, deadline=None)
@given(case=cases(), at=st.integers(1, 40))
def test_no_row_knows_an_event_that_follows_it(case, at, lean):
    market, spec = case
    spec = users(replace(spec, feed_latency="recorded"))
    times = sorted({e.ns for e in [*market.frames, *market.prints]})
    cut = times[at % len(times)]
    if cut <= market.frames[0].ns:
        return
    frames = [f if f.ns < cut else replace(f, bid=f.bid + 3, ask=f.ask + 5, event=f.ns - 10**12) for f in market.frames]
    prints = [p if p.ns < cut else replace(p, price=p.price + 4, lots=20) for p in market.prints]
    whole = simulate(market, spec, lean)
    other = simulate(replace(market, frames=frames, prints=prints), spec, lean)
    for name in TABLES:
        before = pl.col("recv_ns") < cut
        assert getattr(whole, name).filter(before).equals(getattr(other, name).filter(before)), name


def test_it_sees_what_was_so_at_that_time_and_no_more():
    """Fills are known once their report has come; times are those of the frames, money and quantities decimals."""
    views: list[View] = []

    def look(view: View) -> tuple[float, float]:
        views.append(view)
        return view.bid, view.ask

    market = replace(busy(1, 300), tick="0.05", lot="0.00001")
    spec = users(replace(MARGIN, qty=0.0001, initial_cash=7.0, response_latency_ms=400, requote_interval_ms=1))
    strategy = Strategy("look", "", look, None)
    got = simulate(market, spec, strategy)
    frames = {f.ns: f for f in market.frames}
    fills = got.fills.to_dicts()
    assert len(views) > 100
    assert len(fills) > 5
    for view in views:
        frame = frames[view.t_ns]
        known = [f for f in fills if f["recv_ns"] + 400_000_000 <= view.t_ns]
        assert (view.bid, view.ask) == (round(frame.bid * 0.05, 2), round(frame.ask * 0.05, 2))
        assert view.mid == pytest.approx((view.bid + view.ask) / 2, rel=1e-15)
        assert view.bid_qty == pytest.approx(frame.bid_lots * 1e-5, rel=1e-12)
        assert view.ask_qty == pytest.approx(frame.ask_lots * 1e-5, rel=1e-12)
        assert view.inventory == pytest.approx(sum(f["side"] * f["qty"] for f in known), abs=1e-12)
        paid = sum(f["side"] * f["price"] * f["qty"] + f["fee"] for f in known)
        assert view.cash == pytest.approx(7.0 - paid, abs=1e-9)
        assert (view.tick_size, view.qty) == (0.05, 0.0001)
        segment = [s for s in market.segments if s[0] <= view.t_ns < s[1]]
        assert (view.A, view.k) == (segment[0][2:] if segment else (pytest.approx(float("nan"), nan_ok=True),) * 2)


def test_nan_is_no_order_and_memory_is_kept(path):
    strategy = interpreted(load(f"{path}:once"))
    got = simulate(still(5), users(MARGIN), strategy)
    assert got.orders.select("recv_ns", "action").rows() == [
        (START, "PLACE"), (START + 10**9, "CANCEL_REQ"), (START + 1_060_000_000, "CANCEL_ACK"),
    ]  # fmt: skip
    assert got.state.height == 6


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("in_python", "seen"),
        ("text", "f-strings"),
        ("with_default", "2 arguments"),
        ("quoter", "it is a Quoter, no plain function"),
    ],
)
def test_one_that_cannot_be_compiled_runs_in_python_and_says_why(path, name, reason):
    strategy = load(f"{path}:{name}")
    assert strategy.compiled is None
    assert reason in strategy.reason
    assert "\n" not in strategy.reason
    got = simulate(still(3), users(MARGIN), strategy)
    assert got.orders["action"].to_list() == ["PLACE", "PLACE"]


def test_prices_beyond_all_bounds_are_refused_or_wait_for_ever(path):
    orders = simulate(still(2), users(MARGIN), interpreted(load(f"{path}:endless"))).orders
    assert orders.select("side", "action", "reject_reason").rows() == [(1, "SKIP", "min_notional"), (-1, "PLACE", "")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("divides", "failed"),
        ("divides_in_python", f"failed in line {FILE.splitlines().index('    seen.append(1)') + 2}"),
        ("beyond_memory", "IndexError"),
        ("too_much", "worth too much"),
        ("nothing", "returned None"),
        ("three", "returned ("),
        ("words", "returned ('buy', 'sell')"),
        ("half_a_pair", "None)"),
        ("two_views", "TypeError"),
    ],
)
def test_what_it_does_wrong_is_told(path, name, message):
    """At the first decision, compiled or not."""
    strategy = load(f"{path}:{name}")
    for one in (interpreted(strategy), *([strategy] if name != "too_much" else [])):
        with pytest.raises(UsageError) as caught:
            simulate(still(2), users(MARGIN), one)
        assert message in caught.value.message
        assert f"{path}:{name}" in caught.value.message
        assert caught.value.remedy
        assert ("returned" in caught.value.message) or (f"at {START} ns" in caught.value.message)


def test_a_spec_with_a_strategy_needs_it():
    with pytest.raises(ValueError, match="not given"):
        simulate(still(2), users(MARGIN), None)


def test_a_file_is_known_by_its_bytes(path):
    assert load(f"{path}:fixed").sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("text", "where", "message", "remedy"),
    [
        ("x = 1", "{}", "--strategy is", "file.py:name"),
        (None, "{}:quotes", "--strategy is", "file.py:name"),
        ("def near(view): return 1, 2\nimport math\nfrom numpy import log", "{}:far", "no function 'far'", "has near"),
        ("x = 1", "{}:x", "no function 'x'", "define one"),
        ("import math\n\nmath.nothing\n", "{}:quotes", "line 3: AttributeError", "mend"),
        ("def quotes(view):\n    return (1,\n", "{}:quotes", "line 2: SyntaxError", "mend"),
        ("import json\n\n\njson.loads('{')\n", "{}:quotes", "line 4: JSONDecodeError", "mend"),
        ("import sys\nsys.exit(3)\n", "{}:quotes", "line 2: SystemExit", "mend"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path, text, where, message, remedy):
    file = tmp_path / "other.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load(where.format(file))
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_a_file_of_another_kind_is_refused(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("x")
    with pytest.raises(UsageError, match="no Python file"):
        load(f"{file}:x")
