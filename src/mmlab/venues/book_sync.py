"""The order book's sync with the venue, as a table: state x condition -> action, next state.

It knows ids, never prices: told of each update and snapshot, it answers what to do with the book.
It holds the buffer of updates that wait for a snapshot. No socket, no clock, no book.

Binance spot (https://developers.binance.com, Web Socket Streams, "How to manage a local order book
correctly"; L is the snapshot's lastUpdateId, id the book's):
  1. Open the stream.  2. Buffer its updates; remember the first one's U.  3. Get a snapshot.
  4. L < first U: get another one; the buffer stays. (L == U - 1 leaves no hole and is taken.)
  5. Drop the updates with u <= L; the first one kept has L within [U, u]. (U == L + 1 leaves no hole.)
  6. Book := snapshot, id := L.
  7. Apply the rest, then the stream: u < id: ignore (u == id changes nothing, ignored too);
     U > id + 1: updates were missed, throw the book away and start over; else apply, id := u.

Binance USD-M ("How to manage a local order book correctly", USD-M):
  1. Open the stream.  2. Buffer its updates.  3. Get a snapshot.
  4. Drop the updates with u < L.
  5. The first one processed has U <= L <= u. (pu == L is the same junction and is taken.)
  6. From then on pu must equal the u before; if not, start over at 3. Ids are not dense. (u <= id is
     a repetition of what the book holds already, and is ignored.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, NamedTuple, Protocol, TypeVar

BUFFER = 5000  # updates kept while unsynced: minutes of the stream, where a snapshot takes seconds


class Numbered(Protocol):
    """An update's ids; `prev_id` is the id of the update before it, where the venue sends that."""

    first_id: int
    last_id: int
    prev_id: int | None


M = TypeVar("M", bound=Numbered)


class State(Enum):
    """What is known of the book."""

    NO_SNAPSHOT = auto()
    SNAPSHOT_WAITING = auto()  # a snapshot is loaded, and no update has joined it yet
    SYNCED = auto()


class Condition(Enum):
    """How a message's ids stand to the book's id."""

    UPDATE_UNPLACED = auto()  # there is no book to compare with
    UPDATE_STALE = auto()  # the book holds it already
    UPDATE_JOINS = auto()  # nothing is missing between the book and it
    UPDATE_AHEAD = auto()  # something is missing
    SNAPSHOT_NEWER = auto()  # also: the first one
    SNAPSHOT_OLDER = auto()  # not newer than the book


class Action(Enum):
    """What to do with the message."""

    BUFFER = auto()  # nothing: it is kept
    IGNORE = auto()  # nothing
    LOAD = auto()  # book := snapshot, and wait for an update that joins
    SYNC = auto()  # (book := snapshot, if the message is one), apply the step's updates: in sync
    APPLY = auto()  # apply the step's updates
    REFUSE = auto()  # the snapshot is older than the buffer: drop it and get another one
    RESYNC = auto()  # updates were missed: throw the book away and get a snapshot


TRANSITIONS: dict[tuple[State, Condition], tuple[Action, State]] = {
    # rule 2 (spot), rule 2 (usdm)
    (State.NO_SNAPSHOT, Condition.UPDATE_UNPLACED): (Action.BUFFER, State.NO_SNAPSHOT),
    # rules 3 and 6 (spot), rule 3 (usdm)
    (State.NO_SNAPSHOT, Condition.SNAPSHOT_NEWER): (Action.LOAD, State.SNAPSHOT_WAITING),
    (State.SNAPSHOT_WAITING, Condition.SNAPSHOT_NEWER): (Action.LOAD, State.SNAPSHOT_WAITING),
    (State.SNAPSHOT_WAITING, Condition.SNAPSHOT_OLDER): (Action.IGNORE, State.SNAPSHOT_WAITING),
    # rule 5 (spot), rule 4 (usdm)
    (State.SNAPSHOT_WAITING, Condition.UPDATE_STALE): (Action.IGNORE, State.SNAPSHOT_WAITING),
    # rule 5 (spot), rule 5 (usdm)
    (State.SNAPSHOT_WAITING, Condition.UPDATE_JOINS): (Action.SYNC, State.SYNCED),
    # rule 4 (spot), rule 5 (usdm)
    (State.SNAPSHOT_WAITING, Condition.UPDATE_AHEAD): (Action.REFUSE, State.NO_SNAPSHOT),
    # rule 7 (spot), rule 6 (usdm)
    (State.SYNCED, Condition.UPDATE_STALE): (Action.IGNORE, State.SYNCED),
    (State.SYNCED, Condition.UPDATE_JOINS): (Action.APPLY, State.SYNCED),
    (State.SYNCED, Condition.UPDATE_AHEAD): (Action.RESYNC, State.NO_SNAPSHOT),
    # a book in sync needs no snapshot
    (State.SYNCED, Condition.SNAPSHOT_NEWER): (Action.IGNORE, State.SYNCED),
    (State.SYNCED, Condition.SNAPSHOT_OLDER): (Action.IGNORE, State.SYNCED),
}


@dataclass(frozen=True)
class Rules:
    """A venue's ways to place an update: the first one after a snapshot, and the later ones.

    `missing` gives the first and last id that lie between the book and an update ahead of it.
    """

    first: Callable[[Numbered, int], Condition]
    later: Callable[[Numbered, int], Condition]
    missing: Callable[[Numbered, int], tuple[int, int] | None]


class Step(NamedTuple, Generic[M]):
    """What to do: the action, the updates to apply in order, and the ids that are known to be missing."""

    action: Action
    updates: Sequence[M] = ()
    missing: tuple[int, int] | None = None


class BookSync(Generic[M]):
    """One book's sync: feed it every update and snapshot in the order of receipt, and obey the steps."""

    def __init__(self, rules: Rules) -> None:
        self.state = State.NO_SNAPSHOT
        self.book_id: int | None = None
        self.buffer: deque[M] = deque(maxlen=BUFFER)
        self._rules = rules

    def on_update(self, update: M) -> Step[M]:
        """Place one update; an update that reveals a hole is kept, since the next snapshot may join it."""
        action, missing = self._move(update)
        if action is Action.APPLY or action is Action.SYNC:
            return Step(action, (update,))
        if action is not Action.IGNORE:
            self.buffer.append(update)
        return Step(action, missing=missing)

    def on_snapshot(self, last_update_id: int) -> Step[M]:
        """Place a snapshot, and after it what was buffered. RESYNC here: the buffer itself has a hole."""
        newer = self.book_id is None or last_update_id > self.book_id
        condition = Condition.SNAPSHOT_NEWER if newer else Condition.SNAPSHOT_OLDER
        action, self.state = TRANSITIONS[self.state, condition]
        if action is Action.IGNORE:
            return Step(action)
        self.book_id = last_update_id
        waiting = list(self.buffer)
        self.buffer.clear()
        joined: list[M] = []
        for i, update in enumerate(waiting):
            done, missing = self._move(update)
            if done in (Action.REFUSE, Action.RESYNC):
                self.buffer.extend(waiting[i:])
                return Step(done, missing=missing)
            if done is not Action.IGNORE:
                joined.append(update)
        return Step(Action.SYNC if joined else action, joined)

    def reset(self, keep: M | None = None) -> None:
        """The book is lost for a reason of the caller's (reconnect, crossed book); `keep` opens the new buffer."""
        self.state, self.book_id = State.NO_SNAPSHOT, None
        self.buffer.clear()
        if keep is not None:
            self.buffer.append(keep)

    def _move(self, update: M) -> tuple[Action, tuple[int, int] | None]:
        """Make the transition that `update` asks for; the book's id moves with it."""
        missing = None
        if self.book_id is None:
            condition = Condition.UPDATE_UNPLACED
        else:
            place = self._rules.later if self.state is State.SYNCED else self._rules.first
            condition = place(update, self.book_id)
            if condition is Condition.UPDATE_AHEAD:
                missing = self._rules.missing(update, self.book_id)
        action, self.state = TRANSITIONS[self.state, condition]
        if condition is Condition.UPDATE_JOINS:
            self.book_id = update.last_id
        elif condition is Condition.UPDATE_AHEAD:
            self.book_id = None
        return action, missing


def _spot(update: Numbered, book_id: int) -> Condition:
    if update.last_id <= book_id:
        return Condition.UPDATE_STALE  # rule 5 (spot) before the first, rule 7 (spot) after it
    if update.first_id <= book_id + 1:
        return Condition.UPDATE_JOINS  # rule 5 (spot), rule 7 (spot)
    return Condition.UPDATE_AHEAD  # rule 4 (spot), rule 7 (spot)


def _usdm_first(update: Numbered, book_id: int) -> Condition:
    if update.last_id < book_id:
        return Condition.UPDATE_STALE  # rule 4 (usdm)
    if update.first_id <= book_id or update.prev_id == book_id:
        return Condition.UPDATE_JOINS  # rule 5 (usdm)
    return Condition.UPDATE_AHEAD  # rule 5 (usdm)


def _usdm_later(update: Numbered, book_id: int) -> Condition:
    if update.prev_id == book_id:
        return Condition.UPDATE_JOINS  # rule 6 (usdm)
    if update.last_id <= book_id:
        return Condition.UPDATE_STALE  # rule 6 (usdm)
    return Condition.UPDATE_AHEAD  # rule 6 (usdm)


def _between(book_id: int, last: int) -> tuple[int, int] | None:
    return (book_id + 1, last) if book_id < last else None


SPOT = Rules(_spot, _spot, lambda update, book_id: _between(book_id, update.first_id - 1))
USDM = Rules(_usdm_first, _usdm_later, lambda update, book_id: _between(book_id, update.prev_id or 0))
