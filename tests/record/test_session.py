"""The recorder's decisions: told what happened and what the records want, what it does, and what it never does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.spans import NS_PER_MIN, NS_PER_MS, NS_PER_S
from mmlab.record.commands import Close, Command, Fetch, Note, Open, Settings
from mmlab.record.policy import CONNECTS, CONNECTS_NS
from mmlab.record.session import PRINT_TRIES, QUIET_NS, SETTLE_NS, Session
from mmlab.venues.endpoints import SPOT, TRADES_LIMIT, USDM, Venue

START = 1000 * NS_PER_S  # of the monotonic clock
WALL = 1_790_000_000 * NS_PER_S // NS_PER_MIN * NS_PER_MIN - START  # wall clock at monotonic 0
RECV = WALL + 7 * NS_PER_MS  # the steady clock is a little ahead of it
NEVER = 1e12
GRAIN_S = 0.01
BOOK = ("BTCUSDT", 1, True)  # wants a snapshot, and updates wait for it
HOLE = ("BTCUSDT", "trade", 1000, 1009)


@dataclass
class Conn:
    line: str
    ending: bool = False


@dataclass
class Records:
    """What the records say, as the test wants it."""

    retired: list[int] = field(default_factory=list)
    conns: dict[int, Conn] = field(default_factory=dict)
    snapshots: list[tuple[str, int, bool]] = field(default_factory=list)
    holes: list[tuple[str, str, int, int]] = field(default_factory=list)
    mute: list[tuple[str, str]] = field(default_factory=list)
    rare: list[tuple[str, str, int]] = field(default_factory=list)
    asked: list[tuple[int, int]] = field(default_factory=list)  # (now, after) of each look at what is silent

    def wants_snapshot(self) -> Iterator[tuple[str, int, bool]]:
        yield from self.snapshots

    def wants_prints(self) -> Iterator[tuple[str, str, int, int]]:
        yield from self.holes

    def silent(self, now_ns: int, after_ns: int, peers: int) -> Iterator[tuple[str, str]]:
        self.asked.append((now_ns, after_ns))
        assert peers > 0
        yield from self.mute

    def quiet(self, now_ns: int, after_ns: int) -> Iterator[tuple[str, str, int]]:
        self.asked.append((now_ns, after_ns))
        yield from self.rare


class Run:
    """A session, the records it looks at, and the time; nothing is asked for unless the test wants it."""

    def __init__(
        self,
        streams: tuple[str, ...] = ("depth", "trade"),
        venue: Venue = SPOT,
        symbols: tuple[str, ...] = ("BTCUSDT",),
        seed: int = 1,
        **times: float,
    ) -> None:
        settings = Settings(**{"info_s": NEVER, "snapshot_s": 0, **times})
        self.session = Session(venue, symbols, streams, settings, seed)
        self.records = Records()
        self.now = START

    @property
    def wall(self) -> int:
        return WALL + self.now

    def poll(self, after_s: float = 0.0) -> list[Command]:
        self.now += round(after_s * NS_PER_S)
        return self.session.poll(self.now, self.wall, RECV + self.now, self.records)

    def until(self, kind: type, most_s: float, grain_s: float = GRAIN_S) -> tuple[float, list[Any]]:
        """Poll until there is such a command: (seconds waited, all of that kind); fails after `most_s`."""
        start = self.now
        while self.now - start <= most_s * NS_PER_S:
            found = [command for command in self.poll(grain_s) if isinstance(command, kind)]
            if found:
                return (self.now - start) / NS_PER_S, found
        raise AssertionError(f"no {kind.__name__} within {most_s} s")

    def nothing(self, for_s: float, grain_s: float = 0.1) -> None:
        """Nothing is to be done for so long."""
        for _ in range(round(for_s / grain_s)):
            assert self.poll(grain_s) == []

    def opened(self, command: Open) -> Note:
        self.records.conns[command.conn] = Conn(command.line)
        return self.session.opened(command.conn, self.now)

    def closed(self, conn: int) -> Note:
        self.records.conns.pop(conn, None)
        return self.session.closed(conn, self.now, 1006, "connection lost")

    def answered(self, fetch: Fetch, status: int, **headers: str) -> list[Note]:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return self.session.answered(fetch.about, status, named, self.now, self.wall)

    def connected(self) -> Run:
        """With every line's connection open."""
        for command in self.poll():
            assert isinstance(command, Open)
            self.opened(command)
        return self


def fetches(commands: list[Command]) -> list[Fetch]:
    return [command for command in commands if isinstance(command, Fetch)]


def opens(commands: list[Command]) -> list[Open]:
    return [command for command in commands if isinstance(command, Open)]


# -- connections ---------------------------------------------------------------------------------------


def test_the_first_thing_to_do_is_to_connect():
    """One connection carries all streams; until it stands, nothing else is to be done, and REST is not asked."""
    run = Run(info_s=600, snapshot_s=3600)
    run.records.snapshots, run.records.holes = [BOOK], [HOLE]
    path = "/stream?streams=btcusdt@depth/btcusdt@trade&timeUnit=MICROSECOND"
    assert run.poll() == [Open(1, "/ depth trade", path, standby=False)]
    run.nothing(60)


def test_each_route_of_the_venue_has_its_connection():
    """USD-M aggregates come by a socket of their own."""
    run = Run(("depth", "aggTrade"), USDM)
    assert [(o.conn, o.line, o.standby) for o in opens(run.poll())] == [
        (1, "/public depth", False),
        (2, "/market aggTrade", False),
    ]


def test_a_connection_that_stands_is_noted():
    run = Run()
    (command,) = opens(run.poll())
    assert run.opened(command) == Note("connect", {"conn": 1, "line": "/ depth trade", "standby": False})
    run.nothing(60)


def test_a_connection_that_is_lost_is_noted_with_the_venues_reason():
    run = Run().connected()
    note = run.session.closed(1, run.now, 1008, "too many requests")
    assert note == Note("disconnect", {"conn": 1, "code": 1008, "reason": "too many requests"})


@given(seed=st.integers(0, 10**6))
def test_after_each_close_the_wait_grows_up_to_its_cap(seed):
    """Half a second, one, two, four; whether it was made and lost, or never made."""
    run = Run(seed=seed, retry_s=0.5, cap_s=4.0)
    (command,) = opens(run.poll())
    for n, step_s in enumerate((0.5, 1, 2, 4, 4, 4)):
        if n % 2:
            run.opened(command)
        run.closed(command.conn)
        waited_s, (command,) = run.until(Open, 5)
        assert step_s / 2 <= waited_s <= step_s + GRAIN_S
        assert (command.conn, command.standby) == (n + 2, False)


def test_a_connection_that_lived_a_minute_is_reopened_soon():
    """Patience is for a venue that does not let us in."""
    run = Run(cap_s=30.0)
    for _ in range(8):
        _, (command,) = run.until(Open, 31)
        run.closed(command.conn)
    _, (command,) = run.until(Open, 31)
    run.opened(command)
    run.nothing(61)
    run.closed(command.conn)
    assert run.until(Open, 31)[0] <= 0.5 + GRAIN_S


def test_no_five_minutes_see_more_connections_than_the_pace_allows():
    """A venue that closes every connection at once, and a wait that is set too short."""
    run = Run(retry_s=0.001, cap_s=0.001)
    made = []
    for _ in range(1400):
        for command in opens(run.poll(0.5)):
            made.append(run.now)
            run.opened(command)
            run.closed(command.conn)
    assert len(made) > 2 * CONNECTS
    assert all(b - a > CONNECTS_NS for a, b in zip(made, made[CONNECTS:], strict=False))


def test_the_pace_holds_over_all_lines():
    """Ten in a second on two lines, and never more in five minutes than for one."""
    run = Run(("depth", "aggTrade"), USDM, retry_s=0.001, cap_s=0.001)
    made = 0
    for _ in range(2900):
        for command in opens(run.poll(0.1)):
            made += 1
            run.closed(command.conn)
    assert made == CONNECTS


def test_a_connection_is_renewed_before_the_venue_closes_it():
    """One stands by when the first is `life_s` old; none more until it has taken over and grown old itself."""
    run = Run(life_s=100).connected()
    run.nothing(99.9)
    (command,) = run.poll(0.1)
    assert isinstance(command, Open)
    assert command.standby
    run.nothing(5)
    assert run.opened(command) == Note("connect", {"conn": 2, "line": "/ depth trade", "standby": True})
    run.nothing(50)
    run.records.retired.append(1)
    assert run.poll() == [Close(1, "handed over")]
    assert run.records.retired == []
    run.closed(1)
    run.nothing(49.9)
    assert [(o.conn, o.standby) for o in opens(run.poll(0.1))] == [(3, True)]


def test_while_two_connections_are_open_there_is_no_third():
    """However old both are, whatever the venue announces, and whoever is silent."""
    run = Run(life_s=100, silent_s=10).connected()
    run.opened(run.until(Open, 101)[1][0])
    run.records.conns[1].ending = run.records.conns[2].ending = True
    run.records.mute = [("BTCUSDT", "trade")]
    assert not any(opens(run.poll(1)) for _ in range(300))


def test_each_line_is_renewed_on_its_own():
    run = Run(("depth", "aggTrade"), USDM, life_s=100)
    public, market = opens(run.poll())
    run.opened(public)
    run.now += 50 * NS_PER_S
    run.opened(market)
    assert [o.line for o in opens(run.poll(50))] == ["/public depth"]
    assert [o.line for o in opens(run.poll(50))] == ["/market aggTrade"]


def test_a_connection_that_the_venue_is_about_to_close_gets_a_standby_at_once():
    """No lead time is promised."""
    run = Run().connected()
    run.nothing(1)
    run.records.conns[1].ending = True
    (command,) = run.poll()
    assert isinstance(command, Open)
    assert (command.conn, command.standby) == (2, True)
    run.nothing(10)


def test_when_the_first_ends_while_another_stands_by_nothing_is_opened():
    run = Run().connected()
    run.records.conns[1].ending = True
    run.opened(opens(run.poll())[0])
    run.closed(1)
    run.nothing(60)


def test_a_line_whose_standby_takes_long_to_open_is_not_opened_a_third_time():
    """The first is lost while the second is being made: that one is the line's connection."""
    run = Run().connected()
    run.records.conns[1].ending = True
    (command,) = opens(run.poll())
    run.closed(1)
    run.nothing(30)
    assert not run.opened(command).details["standby"]
    run.nothing(30)


def test_a_standby_that_cannot_be_made_is_waited_for_as_any_connection():
    """Else 200 tries are spent in a moment, and when the first ends, the pace refuses its successor for minutes."""
    run = Run(life_s=100, retry_s=0.5).connected()
    _, (command,) = run.until(Open, 101)
    tries = 1
    for _ in range(500):
        run.closed(command.conn)
        found = opens(run.poll(0.02))
        tries += len(found)
        command = found[0] if found else command
    assert tries <= 8
    run.closed(command.conn)
    run.closed(1)
    assert run.until(Open, 31)


def test_a_silent_stream_is_noted_once_and_gets_one_standby():
    """Connecting anew subscribes anew; the records are asked by their own clock."""
    run = Run(silent_s=10).connected()
    run.nothing(10)
    run.records.mute = [("BTCUSDT", "trade")]
    note, command = run.poll()
    assert note == Note("silence", {"symbol": "BTCUSDT", "stream": "trade", "after_s": 10})
    assert isinstance(command, Open)
    assert command.standby
    run.nothing(9)
    run.opened(command)
    run.nothing(9.9)
    assert set(run.records.asked[-2:]) == {(RECV + run.now, 10 * NS_PER_S)}


def test_a_stream_that_is_new_is_not_yet_silent():
    """A line is given `silent_s` from its opening."""
    run = Run(silent_s=10).connected()
    run.records.mute = [("BTCUSDT", "trade"), ("BTCUSDT", "depth")]
    run.nothing(9.9)
    assert [type(command) for command in run.poll(0.1)] == [Note, Open]


def test_only_the_line_of_the_silent_stream_is_renewed():
    run = Run(("depth", "aggTrade"), USDM, silent_s=10).connected()
    run.records.mute = [("BTCUSDT", "aggTrade")]
    assert [o.line for o in run.until(Open, 11)[1]] == ["/market aggTrade"]


# -- snapshots -----------------------------------------------------------------------------------------


def test_a_book_without_a_snapshot_gets_one_request_and_a_note_of_it():
    """While that is under way, there is no other."""
    run = Run().connected()
    run.records.snapshots = [BOOK]
    note, fetch = run.poll()
    assert note == Note("snapshot_request", {"symbol": "BTCUSDT", "generation": 1, "attempt": 1})
    assert fetch == Fetch(SPOT.depth("BTCUSDT"), {"purpose": "snapshot", "symbol": "BTCUSDT", "generation": 1})
    run.nothing(60)
    assert run.answered(fetch, 200) == []
    run.records.snapshots = []
    run.nothing(60)


@given(seed=st.integers(0, 10**6), status=st.sampled_from([0, 200, 404, 500, 503]))
def test_a_snapshot_that_fails_is_asked_for_again_after_growing_waits(seed, status):
    """Also one that was answered but did not do: the book wants it still."""
    run = Run(seed=seed, retry_s=0.5, cap_s=4.0).connected()
    run.records.snapshots = [BOOK]
    note, fetch = run.poll()
    for n, step_s in enumerate((0.5, 1, 2, 4, 4)):
        assert note.details["attempt"] == n + 1
        run.nothing(3)
        assert run.answered(fetch, status) == []
        waited_s, (note, fetch) = run.until(Note | Fetch, 5)
        assert step_s / 2 <= waited_s <= step_s + GRAIN_S


def test_a_new_generation_starts_with_fresh_patience():
    """Another book: it is asked for at once, as the first try, and its waits are short again."""
    run = Run(retry_s=0.5, cap_s=30.0).connected()
    run.records.snapshots = [BOOK]
    for _ in range(6):
        _, (fetch,) = run.until(Fetch, 31)
        run.answered(fetch, 500)
    assert run.poll() == []
    run.records.snapshots = [("BTCUSDT", 2, True)]
    note, fetch = run.poll()
    assert note.details == {"symbol": "BTCUSDT", "generation": 2, "attempt": 1}
    run.answered(fetch, 500)
    assert run.until(Fetch, 31)[0] <= 0.5 + GRAIN_S


def test_a_new_generation_waits_for_the_answer_that_is_under_way():
    """One request at a time, though its answer is for a book that is gone."""
    run = Run(retry_s=0.5).connected()
    run.records.snapshots = [BOOK]
    (fetch,) = fetches(run.poll())
    run.records.snapshots = [("BTCUSDT", 2, True)]
    run.nothing(5)
    run.answered(fetch, 200)
    waited_s, (again,) = run.until(Fetch, 5)
    assert waited_s <= 0.5 + GRAIN_S
    assert again.about["generation"] == 2


def test_a_book_that_says_nothing_is_asked_for_a_little_later():
    """A snapshot before the first update is older than it, in most cases."""
    run = Run().connected()
    run.records.snapshots = [("BTCUSDT", 1, False)]
    run.nothing(QUIET_NS / NS_PER_S)
    assert len(fetches(run.poll(0.001))) == 1


def test_books_of_two_symbols_are_asked_for_side_by_side():
    run = Run(symbols=("BTCUSDT", "ETHUSDT")).connected()
    run.records.snapshots = [BOOK, ("ETHUSDT", 1, True)]
    first, _ = fetches(run.poll())
    run.answered(first, 500)
    assert [f.about["symbol"] for f in run.until(Fetch, 1)[1]] == ["BTCUSDT"]


def test_weight_that_others_have_used_is_left_to_them():
    """The venue counts all processes of this address; the next minute is ours again."""
    run = Run().connected()
    run.records.snapshots = [BOOK]
    (fetch,) = fetches(run.poll())
    run.answered(fetch, 500, x_mbx_used_weight_1m="2999")
    run.nothing(59)
    assert len(fetches(run.poll(1))) == 1


# -- a venue that wants to be left alone ---------------------------------------------------------------


def blocked(run: Run, status: int, **headers: str) -> list[Note]:
    """The notes upon such an answer to the first snapshot's request."""
    run.records.snapshots = [BOOK]
    (fetch,) = fetches(run.poll())
    return run.answered(fetch, status, **headers)


def test_429_is_obeyed_to_the_second_that_it_names():
    """No request of any kind before its end, then one; the streams go on."""
    run = Run(info_s=5).connected()
    _, (first,) = run.until(Fetch, 5)
    run.answered(first, 200)
    notes = blocked(run, 429, retry_after="17")
    assert notes == [Note("rest_wait", {"status": 429, "until_ns": run.wall + 17 * NS_PER_S})]
    run.records.holes = [HOLE]
    run.nothing(16.9)
    run.records.holes = []
    assert "snapshot" in [fetch.about["purpose"] for fetch in fetches(run.poll(0.1))]
    run.nothing(3)


@pytest.mark.parametrize("headers", [{}, {"retry_after": ""}, {"retry_after": "soon"}, {"retry_after": "-5"}])
@pytest.mark.parametrize(("status", "wait_s"), [(429, 60), (418, 120), (403, 120)])
def test_a_ban_that_names_no_end_is_waited_out(status, wait_s, headers):
    """A minute, or two if the venue has banned us."""
    run = Run().connected()
    (note,) = blocked(run, status, **headers)
    assert note.details == {"status": status, "until_ns": run.wall + wait_s * NS_PER_S}
    run.nothing(wait_s - 0.1)
    assert len(fetches(run.poll(0.1))) == 1


def test_a_shorter_wait_does_not_shorten_a_longer_one():
    """Two requests were under way; one was answered with a ban, the other with less."""
    run = Run(symbols=("BTCUSDT", "ETHUSDT")).connected()
    run.records.snapshots = [BOOK, ("ETHUSDT", 1, True)]
    first, second = fetches(run.poll())
    run.answered(first, 418, retry_after="300")
    run.answered(second, 429, retry_after="1")
    run.nothing(299.9)
    assert len(fetches(run.poll(0.1))) == 2


def test_a_ban_from_an_earlier_process_is_obeyed():
    """Connections are made meanwhile."""
    run = Run()
    run.session.blocked_wall_ns = run.wall + 30 * NS_PER_S
    run.records.snapshots = [BOOK]
    run.connected()
    run.nothing(29.9)
    assert len(fetches(run.poll(0.1))) == 1


@pytest.mark.parametrize("header", ["retry_after", "x_mbx_used_weight_1m"])
def test_a_header_that_is_no_number_is_as_good_as_none(header):
    """Headers are bytes of the venue, read as Latin-1: a superscript two is one of them."""
    run = Run().connected()
    blocked(run, 429, **{header: "²"})
    run.nothing(59.9)
    assert len(fetches(run.poll(0.1))) == 1


# -- missing prints ------------------------------------------------------------------------------------


def test_missing_prints_are_asked_for_when_rest_may_have_them():
    """REST is behind the streams by some hundred milliseconds."""
    run = Run().connected()
    run.records.holes = [HOLE]
    assert run.poll() == []
    assert run.poll((SETTLE_NS - 1) / NS_PER_S) == []
    (fetch,) = run.poll(1 / NS_PER_S)
    about = {"purpose": "prints", "symbol": "BTCUSDT", "stream": "trade", "first": 1000, "last": 1009, "final": False}
    assert fetch == Fetch(SPOT.prints("trade", "BTCUSDT", 1000, 1009), about)
    run.nothing(60)


def test_each_tape_has_its_own_request():
    run = Run(("trade", "aggTrade")).connected()
    run.records.holes = [HOLE, ("BTCUSDT", "aggTrade", 7, 7)]
    _, found = run.until(Fetch, 1)
    assert [fetch.about["stream"] for fetch in found] == ["trade", "aggTrade"]


def test_a_long_hole_is_asked_for_in_pieces():
    """One request is for TRADES_LIMIT ids; the rest comes when the records want what follows."""
    run = Run().connected()
    run.records.holes = [("BTCUSDT", "trade", 1000, 5000)]
    _, (fetch,) = run.until(Fetch, 1)
    assert fetch.request.path.endswith(f"fromId=1000&limit={TRADES_LIMIT}")
    run.answered(fetch, 200)
    run.records.holes = [("BTCUSDT", "trade", 2000, 5000)]
    waited_s, (fetch,) = run.until(Fetch, 1)
    assert fetch.request.path.endswith(f"fromId=2000&limit={TRADES_LIMIT}")
    assert abs(waited_s - SETTLE_NS / NS_PER_S) <= 2 * GRAIN_S


@pytest.mark.parametrize("status", [200, 500])
def test_only_ids_that_were_asked_for_are_given_up(status):
    """What the last try, or its failure, declares lost is what the request was for: TRADES_LIMIT ids at most."""
    run = Run().connected()
    run.records.holes = [("BTCUSDT", "trade", 1000, 5000)]
    for _ in range(PRINT_TRIES):
        _, (fetch,) = run.until(Fetch, 31)
        notes = run.answered(fetch, status)
    assert fetch.about["final"]
    for about in (fetch.about, *(note.details for note in notes)):
        assert about["last"] - about["first"] < TRADES_LIMIT


def test_the_last_try_is_marked_as_final():
    """Waits grow between the tries; what the last one does not bring is lost."""
    run = Run(retry_s=0.5).connected()
    run.records.holes = [HOLE]
    final, waits = [], []
    for _ in range(PRINT_TRIES):
        waited_s, (fetch,) = run.until(Fetch, 31)
        waits.append(waited_s)
        final.append(fetch.about["final"])
        assert run.answered(fetch, 200) == []
    assert final == [False] * (PRINT_TRIES - 1) + [True]
    assert all(step / 2 <= waited <= step + GRAIN_S for step, waited in zip((0.5, 1, 2), waits[1:], strict=True))


def test_another_hole_has_tries_of_its_own():
    run = Run().connected()
    run.records.holes = [HOLE]
    for _ in range(PRINT_TRIES):
        _, (fetch,) = run.until(Fetch, 31)
        run.answered(fetch, 200)
    run.records.holes = [("BTCUSDT", "trade", 2000, 2001)]
    _, (fetch,) = run.until(Fetch, 31)
    assert not fetch.about["final"]


@pytest.mark.parametrize("status", [0, 404, 500, 503])
def test_prints_that_rest_fails_to_give_are_declared_on_the_last_try(status):
    """One note, which says what is lost and why."""
    run = Run().connected()
    run.records.holes = [HOLE]
    for n in range(PRINT_TRIES):
        _, (fetch,) = run.until(Fetch, 31)
        notes = run.answered(fetch, status)
        assert len(notes) == (n == PRINT_TRIES - 1)
    what = {"symbol": "BTCUSDT", "stream": "trade", "first": 1000, "last": 1009}
    assert notes == [Note("backfill_failed", {**what, "reason": f"HTTP {status}"})]


@pytest.mark.parametrize("status", [429, 418])
def test_prints_are_not_lost_because_the_venue_wants_a_rest(status):
    """It has not said that it lacks them."""
    run = Run().connected()
    run.records.holes = [HOLE]
    for _ in range(2 * PRINT_TRIES):
        _, (fetch,) = run.until(Fetch, 61)
        notes = run.answered(fetch, status, retry_after="1")
        assert [note.name for note in notes] == ["rest_wait"]


def test_a_tape_without_prints_is_looked_at_ever_more_rarely():
    """Only REST knows whether nothing was traded or the stream is dead: after one, two, four minutes, up to ten."""
    run = Run().connected()
    run.records.rare = [("BTCUSDT", "trade", 999)]
    (fetch,) = fetches(run.poll())
    assert fetch.request == SPOT.prints("trade", "BTCUSDT", 1000, 1999)
    assert fetch.about == {"purpose": "probe", "symbol": "BTCUSDT", "stream": "trade", "after": 999}
    waits = []
    for _ in range(6):
        run.answered(fetch, 200)
        waited_s, (fetch,) = run.until(Fetch, 601, 1.0)
        waits.append(waited_s)
    assert waits == [60, 120, 240, 480, 600, 600]


# -- what is looked at now and then --------------------------------------------------------------------


def test_filters_are_looked_at_every_ten_minutes():
    run = Run(info_s=600).connected()
    run.nothing(599.9)
    (fetch,) = fetches(run.poll(0.1))
    assert fetch == Fetch(SPOT.info(("BTCUSDT",)), {"purpose": "info"})
    run.answered(fetch, 200)
    run.nothing(599.9)
    assert fetches(run.poll(0.1)) == [fetch]


def test_the_book_is_checked_by_a_snapshot_every_hour():
    """It is told apart from one that the book waits for, and may be under way at the same time."""
    run = Run(snapshot_s=3600).connected()
    assert run.poll() == []
    run.nothing(3599, 1)
    run.records.snapshots = [BOOK]
    (fetch,) = fetches(run.poll(0.9))
    assert "check" not in fetch.about
    run.answered(fetch, 200)
    run.records.snapshots = [("BTCUSDT", 2, True)]
    assert [fetch.about.get("check", False) for fetch in fetches(run.poll(0.1))] == [False, True]


def test_a_check_can_be_switched_off():
    run = Run(snapshot_s=0).connected()
    run.nothing(80_000, 600)


def test_a_check_that_the_budget_refuses_is_made_in_the_next_minute():
    """Twelve snapshots fill a minute's share; the thirteenth symbol is checked too."""
    symbols = tuple(f"S{n}USDT" for n in range(13))
    run = Run(symbols=symbols, snapshot_s=3600).connected()
    checked = set()
    for _ in range(3700):
        for fetch in fetches(run.poll(1)):
            checked.add(fetch.about["symbol"])
            run.answered(fetch, 200)
    assert checked == set(symbols)


def test_filters_that_the_budget_refuses_are_looked_at_in_the_next_minute():
    """Others have used the minute up; ten minutes later would be late for a halt."""
    run = Run(info_s=600).connected()
    run.nothing(599.9)
    run.session.budget.told(3000, run.wall + NS_PER_S // 10)
    assert run.poll(0.1) == []
    assert run.until(Fetch, 61)


# -- the end -------------------------------------------------------------------------------------------


def test_a_connection_that_has_handed_over_is_closed():
    run = Run().connected()
    run.records.retired += [1, 7]
    assert run.poll() == [Close(1, "handed over"), Close(7, "handed over")]
    assert run.poll() == []


def test_while_stopping_there_is_nothing_but_closes():
    """No connection, no request, no note, whatever is wanted."""
    run = Run(info_s=600, snapshot_s=3600, life_s=1, silent_s=1).connected()
    run.session.stopping = True
    run.records.snapshots, run.records.holes = [BOOK], [HOLE]
    run.records.mute, run.records.rare = [("BTCUSDT", "trade")], [("BTCUSDT", "trade", 9)]
    run.records.conns[1].ending = True
    run.nothing(10)
    run.records.retired.append(1)
    assert run.poll() == [Close(1, "handed over")]
    run.closed(1)
    run.nothing(10)


# -- whatever happens ----------------------------------------------------------------------------------


class World:
    """A venue and a network that do as they please; each poll checks that what is done may be done."""

    def __init__(self, seed: int) -> None:
        self.run = Run(("depth", "aggTrade"), USDM, seed=seed, life_s=50, silent_s=20, info_s=30, snapshot_s=40)
        self.records = self.run.records
        self.making: dict[str, Open] = {}
        self.asked: dict[tuple[Any, ...], Fetch] = {}
        self.generation = 1

    def on_line(self, line: str) -> list[int]:
        return [number for number, conn in self.records.conns.items() if conn.line == line]

    def poll(self, after_s: float) -> None:
        for command in self.run.poll(after_s):
            if isinstance(command, Open):
                assert command.line not in self.making
                assert len(self.on_line(command.line)) < 2
                assert command.standby == bool(self.on_line(command.line))
                self.making[command.line] = command
            elif isinstance(command, Fetch):
                key = tuple(command.about.get(name) for name in ("purpose", "symbol", "stream", "check"))
                assert key not in self.asked
                assert self.run.wall >= self.run.session.blocked_wall_ns
                self.asked[key] = command

    def open(self) -> None:
        if self.making:
            self.run.opened(self.making.pop(next(iter(self.making))))

    def refuse(self) -> None:
        if self.making:
            self.run.closed(self.making.pop(next(iter(self.making))).conn)

    def lose(self) -> None:
        if self.records.conns:
            self.run.closed(min(self.records.conns))

    def end(self) -> None:
        for conn in self.records.conns.values():
            conn.ending = True

    def retire(self) -> None:
        for line in {conn.line for conn in self.records.conns.values()}:
            if len(self.on_line(line)) > 1:
                self.records.retired.append(self.on_line(line)[0])
                self.poll(0)
                assert not self.records.retired
                self.run.closed(self.on_line(line)[0])

    def answer(self, status: int) -> None:
        if self.asked:
            self.run.answered(self.asked.pop(next(iter(self.asked))), status)

    def resync(self) -> None:
        self.generation += 1
        self.records.snapshots = [("BTCUSDT", self.generation, True)]

    def miss(self) -> None:
        self.records.holes = [("BTCUSDT", "aggTrade", self.generation, self.generation + 5000)]

    def mute(self) -> None:
        self.records.mute = [] if self.records.mute else [("BTCUSDT", "aggTrade")]


happenings = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.01, 0.3, 1.0, 7.0, 61.0]),
        st.one_of(
            st.sampled_from([World.open, World.refuse, World.lose, World.end]),
            st.sampled_from([World.retire, World.resync, World.miss, World.mute]),
            st.sampled_from([0, 200, 403, 418, 429, 500]),
        ),
    ),
    max_size=80,
)


@given(seed=st.integers(0, 100), happenings=happenings)
def test_whatever_happens_nothing_is_done_twice_or_against_the_venues_will(seed, happenings):
    """No third connection on a line, no second in the making; a thing is asked for once at a time, and never if banned.

    And in the end, when all goes well again, every line is connected and everything wanted is asked for.
    """
    world = World(seed)
    for after_s, what in happenings:
        world.poll(after_s)
        if isinstance(what, int):
            world.answer(what)
        else:
            what(world)

    world.records.mute, world.records.snapshots = [], [("BTCUSDT", 10**6, True)]
    world.records.holes = [("BTCUSDT", "aggTrade", 10**7, 10**7)]
    wanted = set()
    for _ in range(400):
        world.poll(1)
        world.open()
        for fetch in world.asked.values():
            wanted |= {fetch.about.get("generation"), fetch.about.get("first")}
        world.answer(200)
        world.retire()
    assert {conn.line for conn in world.records.conns.values()} == {"/public depth", "/market aggTrade"}
    assert {10**6, 10**7} <= wanted
