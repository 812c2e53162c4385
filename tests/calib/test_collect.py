"""A tape cut anywhere gives, to the last bit, what it gives at once; and that is what the obvious loops give."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmlab.calib.collect import Collector
from mmlab.calib.run import check_specs, joined, ladder, ladder_of, rolling
from mmlab.calib.schedule import Roller, Schedule
from mmlab.calib.spec import FitSpec, ProbeSpec, ScheduleSpec
from mmlab.core.errors import DataError, UsageError
from mmlab.core.schemas import CURVES, FITS, POINTS, WINDOW_METRICS, WINDOWS
from mmlab.core.spans import NS_PER_DAY, NS_PER_S
from reference import calib as slow
from reference.parity import START, Recording
from reference.probes import Probe

DELTAS = (1, 2, 4, 7)
RULES = ("first_hit", "sweeps", "all_hits")
SUMS = ("covered_ns", "exposure_ns", "hits", "rings", "lots", "flow")
MARKET = ("spread_tick_us", "spread_us", "move2", "move_us")
MS = 10**6
MIDNIGHT = (START // NS_PER_DAY + 1) * NS_PER_DAY

probe_specs = st.builds(
    ProbeSpec,
    st.just(DELTAS),
    st.sampled_from([1, 20, 400, 60_000]),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    st.sampled_from(RULES),
    st.sampled_from(["touch", "through"]),
    st.booleans(),
    cycle=st.booleans(),
)
seeds = st.integers(0, 2**30)
Hook = Callable[[Collector], Collector]


def cut_at(n: int) -> st.SearchStrategy[list[int]]:
    """Where to cut a tape of `n` events; two equal cuts have an empty chunk between them."""
    return st.lists(st.integers(0, n), max_size=6)


def collector(tape: Recording, spec: ProbeSpec, bucket_ns: int) -> Collector:
    return Collector(tape.gaps, tape.instrument, spec, int(tape.depth["recv_ns"][0]) - 7, bucket_ns)


def sums_of(made: Collector, first: int = 0, last: int | None = None) -> dict[str, np.ndarray]:
    """Every array that buckets [first, last) have."""
    last = made.n_buckets if last is None else last
    sums, market = made.sums(first, last), made.market(first, last)
    assert sums.origin_ns == made.counter.origin_ns + first * made.counter.bucket_ns
    arrays = {**{name: getattr(sums, name) for name in SUMS}, **{name: getattr(market, name) for name in MARKET}}
    assert {a.shape[0] for a in arrays.values()} == {last - first}
    return {name: a.copy() for name, a in arrays.items()}


def collected(
    tape: Recording, spec: ProbeSpec, bucket_ns: int, cuts: Sequence[int] = (), after: Hook = lambda made: made
) -> Collector:
    """The tape, cut; `after` each chunk it may look, or go on with another collector."""
    made = collector(tape, spec, bucket_ns)
    for depth, trades in slow.chunks(tape, cuts):
        made.add(depth, trades)
        made = after(made)
    made.close()
    return made


def assert_equal(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


# ---- chunks


@settings(max_examples=100, deadline=None)
@given(data=st.data(), seed=seeds, n=st.integers(1, 80), spec=probe_specs, bucket=st.sampled_from([13, 90, 10**6]))
def test_any_cuts_give_the_sums_of_one_chunk_and_what_is_final_stays(data, seed, n, spec, bucket):
    """For every counting rule; buckets that end by `final_ns` hold their last word after every chunk."""
    tape, finals = slow.drawn(seed, n), []

    def look(made: Collector) -> Collector:
        done = min(max((made.final_ns - made.counter.origin_ns) // made.counter.bucket_ns, 0), made.n_buckets)
        finals.append((made.final_ns, sums_of(made, 0, done)))
        return made

    want = sums_of(collected(tape, spec, bucket * MS))
    assert_equal(sums_of(collected(tape, spec, bucket * MS, data.draw(cut_at(n)), look)), want)
    assert [t for t, _ in finals] == sorted(t for t, _ in finals)
    for _, early in finals:
        assert_equal(early, {name: a[: early["flow"].shape[0]] for name, a in want.items()})


EDGES = (
    "in an interval", "in a taker order", "in a hole", "at an epoch", "between equal times", "before the first frame",
    "after the last frame", "between intervals",
)  # fmt: skip


def edges(tape: Recording, probes: list[Probe], at: int) -> list[str]:
    """Where a cut before event number `at` falls, in the words of EDGES."""
    frames = slow.keys(tape.depth)
    events = sorted(frames + slow.keys(tape.trades))
    (before, after), found = events[at - 1 : at + 1], []
    inside = any(p.start <= before and after < p.end for p in probes)
    found += ["in an interval"] if inside else ["between intervals"]
    found += ["in a hole"] * any(a < before[0] and after[0] < b for a, b in slow.known_holes(tape))
    found += ["between equal times"] * (before[0] == after[0])
    found += ["before the first frame"] * (after <= frames[0]) + ["after the last frame"] * (before >= frames[-1])
    epochs = dict(zip(frames, tape.depth["epoch_id"], strict=True))
    if after in epochs and any(f < after for f in frames):
        found += ["at an epoch"] * (epochs[max(f for f in frames if f < after)] != epochs[after])
    prints = {(p.ns, p.seq): p for p in slow.prints(tape)}
    if before in prints and after in prints and inside:
        p, q = prints[before], prints[after]
        found += ["in a taker order"] * ((p.trade_ns, p.taker, p.trade_id + 1) == (q.trade_ns, q.taker, q.trade_id))
    return found


@pytest.mark.parametrize("cycle", [False, True])
@pytest.mark.parametrize("count", RULES)
def test_two_tapes_cut_at_each_of_their_events_give_the_same_sums(count, cycle):
    """In an interval, a taker order, a hole, at an epoch, between equal times: none of these cuts leaves a trace."""
    spec, seen = ProbeSpec(DELTAS, 400, 1.0, count, cycle=cycle), Counter()
    for seed in (2, 21):
        tape = slow.drawn(seed, 60)
        want, probes = sums_of(collected(tape, spec, 40 * MS)), slow.laid(tape, spec)
        for at in range(1, 60):
            seen.update(edges(tape, probes, at))
            assert_equal(sums_of(collected(tape, spec, 40 * MS, [at])), want)
        assert_equal(sums_of(collected(tape, spec, 40 * MS, range(60))), want)
    assert min(seen[edge] for edge in EDGES) > 0, seen


@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=seeds, n=st.integers(1, 80), spec=probe_specs)
def test_a_collector_restored_after_every_chunk_goes_on_as_if_nothing_had_been(data, seed, n, spec):
    """Its state goes through np.savez into a fresh one, again and again."""
    tape, bucket = slow.drawn(seed, n), 90 * MS

    def again(made: Collector) -> Collector:
        fresh = collector(tape, spec, bucket)
        fresh.restore(slow.saved(made.state()))
        assert (fresh.final_ns, fresh.last_ns, fresh.n_buckets) == (made.final_ns, made.last_ns, made.n_buckets)
        return fresh

    one, other = collected(tape, spec, bucket), collected(tape, spec, bucket, data.draw(cut_at(n)), again)
    assert_equal(sums_of(other), sums_of(one))
    assert other.counter.intervals == one.counter.intervals == len(slow.laid(tape, spec))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=seeds, n=st.integers(1, 80), spec=probe_specs)
def test_buckets_that_are_done_can_be_dropped_at_any_time(data, seed, n, spec):
    """What was dropped, read before, and what is left are together what one chunk gives."""
    tape, bucket, parts = slow.drawn(seed, n), 90 * MS, []

    def drop(made: Collector) -> Collector:
        done = min(max((made.final_ns - made.counter.origin_ns) // bucket, 0), made.n_buckets)
        done = data.draw(st.integers(0, done))
        parts.append(sums_of(made, 0, done))
        made.drop(done)
        return made

    want, made = collected(tape, spec, bucket), collected(tape, spec, bucket, data.draw(cut_at(n)), drop)
    parts.append(sums_of(made))
    assert_equal({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, sums_of(want))
    start = want.counter.origin_ns
    for t in (start - 1, start, made.counter.origin_ns + bucket, tape.depth["recv_ns"][-1], 2**62):
        inside = max((t - made.counter.origin_ns) // bucket, 0)
        assert made.bucket_of(t) == min(inside, made.n_buckets)


# ---- the obvious loops


@settings(max_examples=40, deadline=None)
@given(seed=seeds, n=st.integers(1, 60), spec=probe_specs, bucket=st.sampled_from([250, 1_700, 10**6]))
def test_sums_and_market_equal_the_obvious_loops(seed, n, spec, bucket):
    """With `cycle`, interval i measures distance number i modulo D and no other; exact, bucket by bucket."""
    tape = slow.drawn(seed, n)
    made = collected(tape, spec, bucket * MS)
    got, found, frames = sums_of(made), slow.measured(tape, spec), slow.quotes(tape)
    origin, bucket_ns = made.counter.origin_ns, made.counter.bucket_ns

    def bucket_of(ns: int) -> int:
        return (ns - origin) // bucket_ns

    assert made.n_buckets == bucket_of(frames[-1].ns) + 1
    for b in range(made.n_buckets):
        span = (origin + b * bucket_ns, origin + (b + 1) * bucket_ns)
        assert [got[name][b] for name in MARKET] == slow.market(frames, span)
        assert got["flow"][b].tolist() == slow.flow(tape, span)
        assert got["covered_ns"][b] == found.covered(span)
        for s, side in enumerate(slow.SIDES):
            for d in range(len(DELTAS)):
                want = found.cell(side, d, span, bucket_of)
                cell = tuple(got[name][b, s, d] for name in ("exposure_ns", "hits", "lots"))
                assert cell == (want.exposure_ns, want.hits, want.lots)
                if spec.cycle:
                    assert got["rings"][b, s, d] == want.hits
                elif spec.count == "first_hit":
                    assert got["rings"][b, s, d] == want.rings


def test_one_distance_after_the_other_takes_its_turn():
    """Four intervals of one distance each: 1, 3, 1, 3; a print 5 ticks deep hits only the one whose turn it is."""
    frames = [(i * NS_PER_S, 10 * i, 1, 999, 1001) for i in range(1, 6)]
    prints = [(i * NS_PER_S + 5 * MS, 10 * i + 1, i, i, 995, 2, -1) for i in range(1, 5)]
    tape = slow.by_hand(frames, prints)
    got = sums_of(collected(tape, ProbeSpec((1, 3), 1_000, cycle=True), 100 * NS_PER_S))
    assert got["hits"][0].tolist() == [[2, 2], [0, 0]]
    assert got["exposure_ns"][0].tolist() == [[10 * MS, 10 * MS], [2 * NS_PER_S, 2 * NS_PER_S]]
    assert got["covered_ns"].tolist() == [4 * NS_PER_S]


def test_the_spread_is_weighed_by_its_time_and_the_mid_sampled_by_the_second_within_an_epoch():
    """By hand: a spread of 2 for 0.4 s, of 6 for 0.7 s, nothing between epochs; a move of 4 half ticks in 1.1 s."""
    frames = [(0, 1, 1, 999, 1001), (400 * MS, 2, 1, 997, 1003), (1_100 * MS, 3, 1, 1000, 1004)]
    frames += [(5_000 * MS, 4, 2, 2000, 2003), (5_900 * MS, 5, 2, 2000, 2001)]
    tape = slow.by_hand([(START + ns, *rest) for ns, *rest in frames])
    got = sums_of(collected(tape, ProbeSpec(), 100 * NS_PER_S))
    us = 1_000
    want = [2 * 400 * us + 6 * 700 * us + 3 * 900 * us, 2_000 * us, 4**2, 1_100 * us]
    assert [got[name].tolist() for name in MARKET] == [[value] for value in want]


def split_order() -> tuple[Recording, ProbeSpec]:
    """A book of 3 s, and one taker order whose first print reaches 1 tick at 0.9 s and whose second 4 ticks at 1.1 s."""
    frames = [(START + i * 100 * MS, 10 * i, 1, 999, 1001) for i in range(1, 31)]
    prints = [(START + 950 * MS, 91, START, 1, 999, 1, -1), (START + 1_050 * MS, 101, START, 2, 996, 1, -1)]
    return slow.by_hand(frames, prints), ProbeSpec(DELTAS, count="sweeps", mid_move_threshold_ticks=0)


@pytest.mark.xfail(strict=True, reason="sweeps: a ring is -1 where a taker order goes on, deeper, in the next bucket")
def test_a_taker_order_over_the_edge_of_a_bucket_gives_no_ring_of_minus_one():
    """Rings are counts: whichever bucket the order belongs to, none may be negative."""
    tape, spec = split_order()
    made = Collector(tape.gaps, tape.instrument, spec, START, NS_PER_S)
    made.add(tape.depth, tape.trades)
    made.close()
    rings = made.sums(0, made.n_buckets).rings[:, 0]
    assert rings.min() >= 0, rings.tolist()


@pytest.mark.parametrize("table", ["frames", "prints"])
def test_a_chunk_that_is_earlier_than_the_one_before_is_refused(table):
    """Rows of one time come in the order of their numbers, over the edge of a chunk too."""
    tape = slow.synthetic()
    made = collector(tape, ProbeSpec(), NS_PER_S)
    (depth, trades), (later_depth, later_trades) = slow.chunks(tape, [700])
    made.add(later_depth, later_trades)
    bad = (depth.tail(1), trades.clear()) if table == "frames" else (depth.clear(), trades.tail(1))
    with pytest.raises(DataError, match="earlier than"):
        made.add(*bad)
    equal = (later_depth.tail(1), trades.clear()) if table == "frames" else (depth.clear(), later_trades.tail(1))
    with pytest.raises(DataError, match="earlier than"):
        made.add(*equal)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), at=st.integers(0, 98))
def test_prints_out_of_order_are_found_wherever_the_chunks_end(data, at):
    """Two neighbours swapped, of a hundred: some chunk says so, at the latest when the tape is over."""
    tape = slow.drawn(3, 150)
    rows = np.arange(tape.trades.height)
    at = at % (rows.size - 1)
    rows[[at, at + 1]] = rows[[at + 1, at]]
    made, cuts = collector(tape, ProbeSpec(DELTAS), NS_PER_S), data.draw(cut_at(150))
    with pytest.raises(DataError, match="earlier than"):  # noqa: PT012
        place = 0
        for depth, trades in slow.chunks(tape, cuts):
            made.add(depth, tape.trades[rows[place : place + trades.height]])
            place += trades.height
        made.close()


# ---- the schedule


TABLES = {"windows": WINDOWS, "fits": FITS, "metrics": WINDOW_METRICS, "points": POINTS}
DAYS = [(MIDNIGHT - NS_PER_DAY, MIDNIGHT, "complete"), (MIDNIGHT, MIDNIGHT + NS_PER_DAY, "degraded")]
SCHEDULES = [ScheduleSpec(0.05, 0.02), ScheduleSpec(0.1, 0.05), ScheduleSpec(0.03, 0.07)]
Made = Callable[[], Roller]


def rolled(make: Made, tape: Recording, cuts: Sequence[int] = (), again: bool = False) -> Schedule:
    """The tape, cut; `again`: through np.savez into a fresh roller after every chunk."""
    roller, parts = make(), []
    for depth, trades in slow.chunks(tape, cuts):
        parts.append(roller.add(depth, trades))
        if again:
            state, roller = slow.saved(roller.state()), make()
            roller.restore(state)
    return joined(*parts, roller.close())


def roller_of(tape: Recording, spec: ProbeSpec, fit: FitSpec, schedule: ScheduleSpec, not_before: int = 0) -> Made:
    first = int(tape.depth["recv_ns"][0])
    return partial(Roller, tape.gaps, tape.instrument, spec, fit, schedule, first, not_before, DAYS)


@st.composite
def schedules(draw: st.DrawFn, most: int = 400) -> tuple[Recording, Made, list[int]]:
    """A tape over midnight, how a roller for it is made, and where to cut."""
    n = draw(st.integers(most // 4, most))
    tape = slow.drawn(draw(seeds), n, MIDNIGHT - START - draw(st.integers(0, 9)) * NS_PER_S)
    spec = replace(draw(probe_specs), dwell_ms=draw(st.sampled_from([20, 400, 60_000])))
    methods = ["poisson_mle", "log_linear"] + ["nested_mle"] * (not spec.cycle)
    fit = FitSpec(draw(st.sampled_from(methods)), draw(st.sampled_from([0.0, 0.5])))
    not_before = draw(st.sampled_from([0, MIDNIGHT]))
    return tape, roller_of(tape, spec, fit, draw(st.sampled_from(SCHEDULES)), not_before), draw(cut_at(n))


def deep_then_quiet() -> tuple[Recording, Made, list[int]]:
    """Probes that stand for minutes, all of them hit 6 ticks deep before a chunk ends, then prints 1 tick deep."""
    frames = [(MIDNIGHT + i * 100 * MS, 10 * i, 1, 999, 1001) for i in range(1, 200)]
    prints = [(MIDNIGHT + 650 * MS, 61, 1, 1, 994, 1, -1)]
    prints += [(MIDNIGHT + i * 1_000 * MS + MS, 100 * i + 1, i, i, 999, 1, -1) for i in range(7, 19)]
    prints += [(MIDNIGHT + i * 1_000 * MS + 2 * MS, 100 * i + 2, i, 2 * i, 1001, 1, 1) for i in range(7, 19)]
    frames[60:] = [(ns, seq, epoch, bid + 4 * (i // 10), ask + 4 * (i // 10)) for i, (ns, seq, epoch, bid, ask) in enumerate(frames[60:])]
    tape = slow.by_hand(frames, prints)
    spec = ProbeSpec(DELTAS, 60_000, 2.0)
    return tape, roller_of(tape, spec, FitSpec(min_exposure_s=0.0), ScheduleSpec(0.05, 0.05)), [70]


@settings(max_examples=40, deadline=None)
@given(case=schedules(), again=st.booleans())
def test_any_cuts_give_the_schedule_of_one_chunk_byte_for_byte(case, again):
    """Windows, fits, metrics and points, with warm days and through saved states; or the same refusal."""
    tape, make, cuts = case
    try:
        want = rolled(make, tape)
    except DataError as error:
        with pytest.raises(DataError) as caught:
            rolled(make, tape, cuts, again)
        assert caught.value.message == error.message
        return
    got = rolled(make, tape, cuts, again)
    for name, table in TABLES.items():
        assert getattr(got, name).equals(table.check(getattr(want, name))), name
