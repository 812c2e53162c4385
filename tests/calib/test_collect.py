"""A tape cut anywhere gives, to the last bit, what it gives at once; and that is what the obvious loops give."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

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


@settings(max_examples=35, deadline=None)
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


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=seeds, n=st.integers(1, 80), spec=probe_specs, bucket=st.sampled_from([13, 90, 10**6]))
def test_prints_that_come_in_pieces_give_the_sums_of_prints_at_once(data, seed, n, spec, bucket):
    """Wherever they are cut, in each of the tape's chunks; a piece may be empty, and there may be none."""
    tape = slow.drawn(seed, n)
    want = sums_of(collected(tape, spec, bucket * MS))
    made = collector(tape, spec, bucket * MS)
    for depth, trades in slow.chunks(tape, data.draw(cut_at(n))):
        cuts = sorted(data.draw(st.lists(st.integers(0, trades.height), max_size=5)))
        pieces = [trades[a:z] for a, z in itertools.pairwise([0, *cuts, trades.height])]
        made.add(depth, iter(pieces if trades.height else []))
    made.close()
    assert_equal(sums_of(made), want)


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
    for seed in (31, 135):
        tape = slow.drawn(seed, 60)
        want, probes = sums_of(collected(tape, spec, 40 * MS)), slow.laid(tape, spec)
        for at in range(1, 60):
            seen.update(edges(tape, probes, at))
            assert_equal(sums_of(collected(tape, spec, 40 * MS, [at])), want)
        assert_equal(sums_of(collected(tape, spec, 40 * MS, range(60))), want)
    assert min(seen[edge] for edge in EDGES) > 0, seen


@settings(max_examples=20, deadline=None)
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


@settings(max_examples=20, deadline=None)
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


@settings(max_examples=20, deadline=None)
@given(seed=seeds, n=st.integers(1, 60), spec=probe_specs, bucket=st.sampled_from([250, 1_700, 10**6]))
def test_sums_and_market_equal_the_obvious_loops(seed, n, spec, bucket):
    """With `cycle`, interval i measures distance number i modulo D and no other; exact, bucket by bucket."""
    tape = slow.drawn(seed, n)
    made = collected(tape, spec, bucket * MS)
    got, found, frames, prints = sums_of(made), slow.measured(tape, spec), slow.quotes(tape), slow.prints(tape)
    origin, bucket_ns = made.counter.origin_ns, made.counter.bucket_ns

    def bucket_of(ns: int) -> int:
        return (ns - origin) // bucket_ns

    assert made.n_buckets == bucket_of(frames[-1].ns) + 1
    for b in range(made.n_buckets):
        span = (origin + b * bucket_ns, origin + (b + 1) * bucket_ns)
        assert [got[name][b] for name in MARKET] == slow.market(frames, span)
        assert got["flow"][b].tolist() == slow.flow(prints, span)
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
                else:
                    assert got["rings"][b, s, d] == found.rings(side, d, span, bucket_of)


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
    """A book of 3 s, and one taker order: first print 1 tick deep in the first second, next 4 in the second."""
    frames = [(START + i * 100 * MS, 10 * i, 1, 999, 1001) for i in range(1, 31)]
    prints = [(START + 950 * MS, 91, START, 1, 999, 1, -1), (START + 1_050 * MS, 101, START, 2, 996, 1, -1)]
    return slow.by_hand(frames, prints), ProbeSpec(DELTAS, count="sweeps", mid_move_threshold_ticks=0)


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


@settings(max_examples=20, deadline=None)
@given(data=st.data(), at=st.integers(0, 98))
def test_prints_out_of_order_are_found_wherever_the_chunks_end(data, at):
    """Two neighbours swapped, of a hundred: some chunk says so, at the latest when the tape is over."""
    found_out(slow.drawn(3, 150), at, data.draw(cut_at(150)))


@pytest.mark.parametrize("seed", [3, 4])
def test_prints_out_of_order_are_found_at_every_cut(seed):
    """All neighbours of a small tape, cut once at every event: none is left out in silence while it waits."""
    tape = slow.drawn(seed, 24)
    for at, cut in itertools.product(range(tape.trades.height - 1), range(24)):
        found_out(tape, at, [cut])


def found_out(tape: Recording, at: int, cuts: Sequence[int]) -> None:
    """Swap print number `at` and the next one, and expect to be told."""
    rows = np.arange(tape.trades.height)
    at = at % (rows.size - 1)
    rows[[at, at + 1]] = rows[[at + 1, at]]
    made, place = collector(tape, ProbeSpec(DELTAS), NS_PER_S), 0
    with pytest.raises(DataError, match="earlier than"):  # noqa: PT012
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


def refusal_or(make: Callable[..., Schedule], *args: object) -> Schedule | str:
    """What is made, or why not."""
    try:
        return make(*args)
    except DataError as error:
        return error.message


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


def deep_then_shallow() -> tuple[Recording, Made, list[int]]:
    """Probes of 2 s; the first are hit 4 ticks deep just before a training span that has no other hit so deep.

    A chunk ends as that span begins, so that what came before is let go.
    """
    frames = [(MIDNIGHT + i * 100 * MS, 10 * i, 1, 999, 1001) for i in range(1, 200)]
    prints = []
    for i in range(10, 190, 3):
        depth = 4 if i == 58 else 1 + i % 2
        prints += [(MIDNIGHT + i * 100 * MS + 50 * MS, 10 * i + 1, i, 2 * i, 1000 - depth, 1, -1)]
        prints += [(MIDNIGHT + i * 100 * MS + 60 * MS, 10 * i + 2, i, 2 * i + 1, 1000 + depth, 1, 1)]
    tape = slow.by_hand(frames, prints)
    spec = ProbeSpec(DELTAS, 2_000, 0.0)
    return tape, roller_of(tape, spec, FitSpec(min_exposure_s=0.0), ScheduleSpec(0.05, 0.05)), [130]


@settings(max_examples=25, deadline=None)
@given(case=schedules(), again=st.booleans())
@example(case=deep_then_shallow(), again=False)
def test_any_cuts_give_the_schedule_of_one_chunk_byte_for_byte(case, again):
    """Windows, fits, metrics and points, with warm days and through saved states; or the same refusal."""
    tape, make, cuts = case
    want, got = refusal_or(rolled, make, tape), refusal_or(rolled, make, tape, cuts, again)
    if isinstance(want, str):
        assert got == want
        return
    for name, table in TABLES.items():
        assert getattr(got, name).equals(table.check(getattr(want, name))), name


def assert_alike(got: pl.DataFrame, want: list[slow.Row]) -> None:
    """The same rows, but for the last digits of floats."""
    assert got.height == len(want)
    for row, other in zip(got.to_dicts(), want, strict=True):
        for name, value in other.items():
            same = row[name] == value or math.isclose(row[name], value, rel_tol=1e-9)
            assert same, (name, row[name], value)


@settings(max_examples=12, deadline=None)
@given(case=schedules(160))
def test_metrics_of_a_window_equal_those_of_the_raw_rows(case):
    """Counts exactly, ratios to the last digits, the dispersion by its formula, the worst of the days touched."""
    tape, make, cuts = case
    made = refusal_or(rolled, make, tape, cuts)
    if isinstance(made, str):
        return
    got = made.metrics
    how = make.keywords | dict(zip(("probes", "fit", "spec"), make.args[2:5], strict=True))
    want = slow.window_metrics(tape, how["probes"], how["spec"], got["start_ns"].to_list(), DAYS)
    assert len(want) == got.height
    assert_alike(got, want)


def test_the_last_good_fit_is_carried_over_the_edges_of_chunks():
    """A, k, source and age of every step, by the rule, with 16 chunks and saved states between them."""
    seen: Counter[str] = Counter()
    for seed in range(3):
        tape = slow.drawn(seed, 400, MIDNIGHT - START)
        make = roller_of(tape, ProbeSpec(DELTAS, 400, 1.0), FitSpec(min_exposure_s=0.5), ScheduleSpec(0.05, 0.02))
        got = rolled(make, tape, range(0, 400, 25), again=True)
        rows = got.windows.select("A", "k", "source", "age_steps").to_dicts()
        assert rows == slow.carried(got.windows.to_dicts(), got.fits.to_dicts())
        seen.update(row["source"] for row in rows)
    assert min(seen[source] for source in ("fit", "carry_forward", "none")) > 0, seen


def test_steps_before_an_instant_are_left_out_but_their_data_are_the_past():
    """Warm days: the steps from midnight on are those of the whole tape, but that none is in force before the first."""
    tape = slow.narrowed(slow.synthetic(seconds=144), MIDNIGHT - slow.synthetic().depth["recv_ns"][0] - 72 * NS_PER_S)
    spec, fit, schedule = ProbeSpec(), FitSpec(), ScheduleSpec(0.5, 0.2)
    late, all_of_them = (rolled(roller_of(tape, spec, fit, schedule, t), tape, [300, 900]) for t in (MIDNIGHT, 0))
    assert late.windows["start_ns"][0] == MIDNIGHT
    assert late.windows.equals(all_of_them.windows.filter(pl.col("start_ns") >= MIDNIGHT))
    assert late.metrics.equals(all_of_them.metrics.filter(pl.col("start_ns") >= MIDNIGHT))
    assert late.points.equals(all_of_them.points)
    assert set(late.metrics["condition"]) == {"complete", "degraded"}
    assert late.metrics["condition"][0] == "complete"


# ---- the whole chain


def changed(tape: Recording, depth: Sequence[pl.Expr] = (), trades: Sequence[pl.Expr] = ()) -> Recording:
    return replace(tape, depth=tape.depth.with_columns(*depth), trades=tape.trades.with_columns(*trades))


def hole(tape: Recording) -> Recording:
    start = tape.depth["recv_ns"][0]
    gap = pl.DataFrame({"from_ns": [start + 30 * NS_PER_S], "to_ns": [start + 45 * NS_PER_S], "stream": ["depth"]})
    return replace(tape, gaps=gap)


def odd_tapes() -> dict[str, Recording]:
    """Markets of 72 s that lack or repeat something."""
    made = slow.synthetic()
    at, start = pl.col("recv_ns"), made.depth["recv_ns"][0]
    second = [at // NS_PER_S * NS_PER_S]
    inside = at.is_between(start + 30 * NS_PER_S, start + 45 * NS_PER_S)
    epochs = [pl.int_range(pl.len()) // 150 + 1]
    return {
        "as it is": made,
        "no prints": replace(made, trades=made.trades.clear()),
        "takers sell only": replace(made, trades=made.trades.filter(pl.col("taker") == -1)),
        "prints before the first frame": replace(made, depth=made.depth.filter(at >= start + 20 * NS_PER_S)),
        "prints after the last frame": replace(made, depth=made.depth.filter(at < start + 50 * NS_PER_S)),
        "all of a second at one instant": changed(made, second, second),
        "a declared hole": hole(made),
        "no frames for a while": replace(made, depth=made.depth.filter(~inside)),
        "epochs of 15 s": changed(made, [epochs[0].alias("epoch_id")]),
        "runs of 15 s": changed(made, [epochs[0].alias("run_id")]),
        "a mid on half ticks": changed(made, [(pl.col("ask_px_1") + 0.01).round(2)]),
        "over midnight": slow.narrowed(made, -36 * NS_PER_S),
    }


@pytest.mark.parametrize("name", odd_tapes())
def test_the_whole_chain_on_an_odd_tape_equals_the_obvious_loops(name):
    """Ladder's points and schedule's metrics; nothing raises, every table meets its contract, cut or not."""
    tape, schedule = odd_tapes()[name], ScheduleSpec(0.4, 0.2)
    spec, fit = ProbeSpec((1, 3, 8), 5_000), FitSpec("nested_mle", 1.0)
    found = ladder(slow.whole(tape), spec, fit)
    want = pl.DataFrame(slow.points_of(tape, spec))
    assert POINTS.check(found.points).select(want.columns).equals(want)
    for table, frame in ((FITS, found.fits), (CURVES, found.curves)):
        table.check(frame)
    cut = ladder_of(slow.chunks(tape, [200, 700]), tape.gaps, tape.instrument, spec, fit, slow.whole(tape).span_ns)
    assert all(getattr(cut, part).equals(getattr(found, part)) for part in ("points", "fits", "curves"))
    reasons = dict(zip(found.fits["side"], found.fits["reason"], strict=True))
    quiet = {"no prints": {"bid", "ask", "both"}, "takers sell only": {"ask"}}.get(name, set())
    assert {side for side, reason in reasons.items() if reason == "no hits"} == quiet
    steps = rolling(slow.whole(tape), spec, fit, schedule)
    points = steps.points
    for side, exposure, hits in found.points.group_by("side").agg(pl.col("exposure_ns", "fills_total").sum()).rows():
        own = points.filter(pl.col("side") == side)
        assert (own["exposure_ns"].sum(), own["fills_total"].sum()) == (exposure, hits)
    rows = slow.window_metrics(tape, spec, schedule, steps.metrics["start_ns"].to_list(), ())
    assert_alike(steps.metrics, rows)


@pytest.mark.parametrize("case", ["one frame", "all in a hole", "frames at one instant"])
def test_a_book_without_time_gives_points_without_exposure(case):
    """No division by nothing: no rate, no curve, and a reason."""
    if case == "one frame":
        tape = slow.by_hand([(START, 1, 1, 999, 1001)], [(START + 5, 2, 1, 1, 990, 1, -1)])
    elif case == "all in a hole":
        frames = [(START + i * NS_PER_S, i, 1, 999, 1001) for i in range(1, 9)]
        tape = slow.by_hand(frames, [(START + 5, 2, 1, 1, 990, 1, -1)], [(START, START + 99 * NS_PER_S)])
    else:
        tape = slow.by_hand([(START, i, 1, 999, 1001) for i in (1, 3)], [(START, 2, 1, 1, 990, 1, -1)])
    for count, cycle in ((count, cycle) for count in RULES for cycle in (False, True)):
        found = ladder(slow.whole(tape), ProbeSpec(DELTAS, count=count, cycle=cycle), FitSpec(min_exposure_s=0))
        assert found.points["exposure_ns"].sum() == 0
        assert not found.points["usable"].any()
        assert found.points["lambda_total"].null_count() == found.points.height == 12
        assert not found.fits["ok"].any()
        assert found.curves.is_empty()


def test_an_estimator_that_a_design_does_not_allow_is_refused():
    """With --cycle the distances share no intervals, so that there are no rings to fit."""
    with pytest.raises(UsageError, match="nested_mle"):
        check_specs(ProbeSpec(cycle=True), FitSpec("nested_mle"))
    with pytest.raises(UsageError, match="nested_mle"):
        rolling(slow.whole(slow.synthetic()), ProbeSpec(cycle=True), FitSpec("nested_mle"), ScheduleSpec(0.4, 0.2))
