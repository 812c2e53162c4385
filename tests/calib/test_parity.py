"""Probes sent as real orders through the paper exchange meet, order by order, the fate that the join gives them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmlab.calib.hits import sums
from mmlab.calib.probes import Intervals, intervals
from mmlab.calib.spec import ProbeSpec
from mmlab.flows.import_raw import ImportSpec, import_raw
from mmlab.sim.intensity import Intensity
from mmlab.sim.run import run
from mmlab.sim.spec import BacktestSpec, FillSpec
from mmlab.store.lake import Lake
from reference import probes as slow
from reference.parity import LAST_SEQ, TABLES, Fate, Recording, fates, recording, rows, script
from reference.raw_feed import SPOT, USDM, real

ACCOUNTS = ({"account": "margin"}, {"account": "spot", "initial_cash": 1e6, "initial_inventory": 100.0})
BTC = ImportSpec("binance-spot", "BTCUSDT", "0.01", "0.00001")
ETH = ImportSpec("binance-usdm", "ETHUSDT", "0.01", "0.001")
SIDES = (1, -1)


def by_orders(tape: Recording, laid: Intervals, spec: ProbeSpec, **flags: object) -> list[list[Fate]]:
    """The paper exchange: every probe as one order of one lot a side, without latency; a run a distance."""
    lot, walked = float(tape.instrument.lot_size), tape.tape
    fill = FillSpec("trade_cross", spec.reach)
    exchange = BacktestSpec(fill=fill, qty=lot, entry_latency_ms=0, cancel_latency_ms=0, **flags)
    lines = (script(laid, walked, delta) for delta in spec.deltas)
    return [fates(run(walked, exchange, Intensity.none(), script=line), laid) for line in lines]


def join(tape: Recording, laid: Intervals, spec: ProbeSpec) -> tuple[np.ndarray, np.ndarray]:
    """Hits and time at risk of all of `laid`, each of shape (2 sides, n_deltas)."""
    origin, end = int(laid.start_ns[0]), int(laid.end_ns[-1])
    one = {"origin_ns": origin, "bucket_ns": end - origin + 1, "n_buckets": 1}
    found = sums(laid, tape.trades, tape.instrument, spec, **one)
    return found.hits[0], found.exposure_ns[0]


def by_join(tape: Recording, laid: Intervals, spec: ProbeSpec) -> list[list[Fate]]:
    """The join of each interval on its own: what became of its bid and its ask probe, a list a distance."""
    found: list[list[Fate]] = [[] for _ in spec.deltas]
    for i, start in enumerate(laid.start_ns.tolist()):
        one = replace(laid, **{name: column[i : i + 1] for name, column in vars(laid).items()})
        hits, at_risk = (a.tolist() for a in join(tape, one, spec))
        for side in (0, 1):
            for d in range(len(spec.deltas)):
                assert hits[side][d] in {0, 1}
                hit = start + at_risk[side][d] if hits[side][d] else None
                found[d].append((hit, at_risk[side][d]))
    return found


def by_loop(tape: Recording, laid: Intervals, spec: ProbeSpec) -> list[list[Fate]]:
    """The obvious loop: the first print that reaches a probe, in exact fractions."""
    found: list[list[Fate]] = [[] for _ in spec.deltas]
    prints, times = tape.prints, tape.trades["recv_ns"].to_list()
    for start_ns, start_seq, end_ns, end_seq, mid2 in rows(laid):
        about = prints[bisect_left(times, start_ns) : bisect_right(times, end_ns)]
        stood = slow.Probe((start_ns, start_seq), (end_ns, end_seq), Fraction(mid2, 2))
        [(probe, inside)] = slow.assign([stood], about)
        for d, delta in enumerate(spec.deltas):
            for side in SIDES:
                reached = (p.ns for p in inside if slow.is_hit(p, probe, side, delta, spec.reach == "through", False))
                hit = next(reached, None)
                found[d].append((hit, (probe.end[0] if hit is None else hit) - probe.start[0]))
    return found


def assert_parity(tape: Recording, laid: Intervals, spec: ProbeSpec, **flags: object) -> list[list[Fate]]:
    """Every order of every distance, then the totals."""
    got = by_orders(tape, laid, spec, **flags)
    assert got == by_join(tape, laid, spec)
    assert got == by_loop(tape, laid, spec)
    hits, at_risk = join(tape, laid, spec)
    for d in range(len(spec.deltas)):
        for side in (0, 1):
            orders = got[d][side::2]
            assert hits[side, d] == sum(hit is not None for hit, _ in orders)
            assert at_risk[side, d] == sum(ns for _, ns in orders)
    return got


@settings(max_examples=50, deadline=None)
@given(
    n=st.integers(2, 40),
    data=st.data(),
    dwell_ms=st.sampled_from([1, 50, 400, 60_000]),
    threshold=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.5]),
    deltas=st.sampled_from([(1, 4), (2, 3), (1, 7), (5,)]),
    reach=st.sampled_from(["touch", "through"]),
    account=st.sampled_from(ACCOUNTS),
    post_only=st.booleans(),
)
def test_a_probe_sent_as_an_order_is_filled_exactly_when_the_join_says_so(
    n, data, dwell_ms, threshold, deltas, reach, account, post_only
):
    """On random tapes, to the nanosecond: hit or not, when, and for how long at risk."""
    tape = recording(n, lambda *values: data.draw(st.sampled_from(values)))
    spec = ProbeSpec(deltas, dwell_ms, threshold, "first_hit", reach)
    laid = intervals(tape.depth, tape.gaps, tape.instrument, spec)
    if laid.start_ns.size:
        assert_parity(tape, laid, spec, post_only=post_only, **account)


@pytest.mark.parametrize("reach", ["touch", "through"])
def test_long_random_tapes_visit_every_edge_at_which_the_two_could_part(reach):
    """Hits at an interval's first instant, at its last one, at a hole's; probes that never stood; half ticks."""
    rng = np.random.default_rng(5)
    seen: Counter[str] = Counter()
    for dwell_ms, threshold in ((20, 1.0), (400, 2.0), (60_000, 0.0)):
        tape = recording(1_500, lambda *values: values[rng.integers(len(values))])
        spec = ProbeSpec((1, 2, 5), dwell_ms, threshold, "first_hit", reach)
        laid = intervals(tape.depth, tape.gaps, tape.instrument, spec)
        for orders in assert_parity(tape, laid, spec, account="margin"):
            seen.update(edges(laid, orders))
    assert min(seen[edge] for edge in EDGES) > 0, seen


EDGES = (
    "filled", "not filled", "filled on a half tick", "filled as it was sent", "filled as its interval ended",
    "filled as a hole began", "ended by a hole", "never stood",
)  # fmt: skip


def edges(laid: Intervals, orders: list[Fate]) -> list[str]:
    """What happened to the orders of one distance, in the words of EDGES."""
    found = []
    for i, (start_ns, start_seq, end_ns, end_seq, mid2) in enumerate(rows(laid)):
        by_hole = end_seq == LAST_SEQ
        found += ["ended by a hole"] * by_hole + ["never stood"] * ((start_ns, start_seq) == (end_ns, end_seq))
        for hit, _ in orders[2 * i : 2 * i + 2]:
            if hit is None:
                found.append("not filled")
                continue
            found += ["filled"] + ["filled on a half tick"] * (mid2 % 2) + ["filled as it was sent"] * (hit == start_ns)
            if hit == end_ns > start_ns:
                found.append("filled as a hole began" if by_hole else "filled as its interval ended")
    return found


@pytest.mark.parametrize(
    ("imports", "names", "n_intervals", "filled"), [(BTC, SPOT, 702, 1383), (ETH, USDM, 555, 698)], ids=["spot", "usdm"]
)
def test_the_same_on_the_real_recordings(tmp_path, imports, names, n_intervals, filled):
    """Dwell 5 s, threshold 2 ticks, at 1 and 13 ticks: every order of hundreds of intervals."""
    lake = Lake(tmp_path)
    refs = import_raw(imports, real(names), lake).refs
    tape = Recording(*(lake.read(refs, *table) for table in TABLES.items()), lake.instrument(refs))
    spec = ProbeSpec((1, 13), 5_000, 2.0)
    laid = intervals(tape.depth, tape.gaps, tape.instrument, spec)
    got = assert_parity(tape, laid, spec, account="margin")
    assert [len(orders) for orders in got] == [2 * n_intervals] * 2
    assert sum(hit is not None for orders in got for hit, _ in orders) == filled
