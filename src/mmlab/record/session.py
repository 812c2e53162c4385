"""The recorder's decisions, without a socket or a clock: told what happened, it says what to do.

    opened, closed, answered   what the rim reports
    poll(now, fold)            what is to be done now: Open, Close, Fetch, Note
    fold                       what the records say is wanted (a snapshot, missing prints, a hand-over)

Connections live on lines: the streams of one socket path. A line has one connection; a second one stands by
while it takes over (planned renewal, the venue's notice of closing, a stream fallen silent).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from mmlab.core.spans import NS_PER_MS, NS_PER_S
from mmlab.record.commands import Close, Command, Fetch, Fold, Note, Open, Settings
from mmlab.record.policy import Backoff, Budget, Pace
from mmlab.venues.endpoints import TRADES_LIMIT, Request, Venue

OK, TOO_MANY, BANNED, FORBIDDEN = 200, 429, 418, 403
PRINT_TRIES = 4  # requests for the same missing prints, before they are declared lost
SETTLE_NS = 700 * NS_PER_MS  # before missing prints are asked for: the venue's REST is behind its streams
QUIET_NS = 2 * NS_PER_S  # a book that says nothing is asked for after this long
PROBE_CAP_NS = 600 * NS_PER_S  # a tape without prints is looked at no more rarely
PEER_FRAMES = 20  # frames that other streams bring before silence is a fault


@dataclass
class Line:
    """One socket path and who is on it."""

    path: str
    backoff: Backoff
    opening: int | None = None  # connection that is being made
    opened_ns: dict[int, int] = field(default_factory=dict)  # connection -> when it opened
    retry_ns: int = 0
    renew: str = ""  # why a standby is wanted
    renewed_ns: int = 0


@dataclass
class Need:
    """One thing asked of REST: whether it is under way, how often it failed, when to try again."""

    backoff: Backoff
    busy: bool = False
    tries: int = 0
    what: Any = None
    done: Any = None  # the last that was answered
    next_ns: int = 0


class Session:
    """See the module. All times are of the monotonic clock, but for those that outlive the process."""

    def __init__(
        self, venue: Venue, symbols: tuple[str, ...], streams: tuple[str, ...], settings: Settings, seed: int
    ) -> None:
        self.venue, self.symbols, self.streams, self.settings = venue, symbols, streams, settings
        self.blocked_wall_ns = 0  # no REST before this instant of the wall clock
        self.stopping = False
        self.budget = Budget(venue.weight_per_min)
        self._rng = Random(seed)
        self._pace = Pace()
        self._lines = {
            f"{route or '/'} {' '.join(sorted({s.partition('@')[2].partition('@')[0] for s in names}))}": Line(
                venue.socket_path(route, names), self._backoff()
            )
            for route, names in venue.lines(symbols, streams).items()
        }
        self._needs: dict[tuple[str, ...], Need] = {}
        self._next_conn = 0
        self._connected_ns = 0
        self._offset_ns = 0
        self._silent_ns = int(settings.silent_s * NS_PER_S)

    def _backoff(self) -> Backoff:
        return Backoff(self.settings.retry_s, self.settings.cap_s, self._rng)

    # -- what happened -------------------------------------------------------------------------------

    def opened(self, conn: int, now_ns: int) -> Note:
        """A connection stands."""
        line_name, line = next((name, line) for name, line in self._lines.items() if line.opening == conn)
        standby = bool(line.opened_ns)
        line.opening, line.renew = None, ""
        line.opened_ns[conn] = line.renewed_ns = now_ns
        self._connected_ns = self._connected_ns or now_ns
        return Note("connect", {"conn": conn, "line": line_name, "standby": standby})

    def closed(self, conn: int, now_ns: int, code: int, reason: str) -> Note:
        """A connection is gone, or was never made."""
        for line in self._lines.values():
            if line.opening == conn or conn in line.opened_ns:
                since = line.opened_ns.pop(conn, None)
                line.opening = None if line.opening == conn else line.opening
                if since is not None and now_ns - since > 60 * NS_PER_S:
                    line.backoff.succeed()
                lost_one = since is not None and line.opened_ns  # a standby takes over
                line.retry_ns = now_ns + (0 if lost_one else line.backoff.fail())
        return Note("disconnect", {"conn": conn, "code": code, "reason": reason})

    def answered(
        self, about: Mapping[str, Any], status: int, headers: Mapping[str, str], now_ns: int, wall_ns: int
    ) -> list[Note]:
        """REST has answered (status 0: it did not); the need it was for is free again."""
        used = headers.get("x-mbx-used-weight-1m", "")
        if _is_number(used):
            self.budget.told(int(used), wall_ns)
        need = self._needs.get(_key(about))
        notes = []
        if need is not None:
            need.busy = False
            if status == OK:
                need.done = need.what
            elif status in (TOO_MANY, BANNED):
                need.tries -= 1  # nobody has looked for it yet
            need.next_ns = max(need.next_ns, now_ns + need.backoff.fail())  # if it did not do, that is
            if about["purpose"] == "prints" and need.tries >= PRINT_TRIES and status not in (OK, TOO_MANY, BANNED):
                what = {key: about[key] for key in ("symbol", "stream", "first", "last")}
                notes.append(Note("backfill_failed", {**what, "reason": f"HTTP {status}"}))
        if status in (TOO_MANY, BANNED, FORBIDDEN):
            self._block(status, headers.get("retry-after", ""), wall_ns)
            notes.append(Note("rest_wait", {"status": status, "until_ns": self.blocked_wall_ns}))
        return notes

    def _block(self, status: int, retry_after: str, wall_ns: int) -> None:
        """No REST until the venue allows it; where it does not say: a minute, or two if it banned us."""
        wait_s = int(retry_after) if _is_number(retry_after) else 60 if status == TOO_MANY else 120
        self.blocked_wall_ns = max(self.blocked_wall_ns, wall_ns + wait_s * NS_PER_S)

    # -- what to do ----------------------------------------------------------------------------------

    def poll(self, now_ns: int, wall_ns: int, recv_ns: int, fold: Fold) -> list[Command]:
        """Everything that is to be done now."""
        commands: list[Command] = []
        commands += [Close(conn, "handed over") for conn in fold.retired]
        fold.retired.clear()
        if self.stopping:
            return commands
        self._watch(now_ns, recv_ns, fold, commands)
        for name, line in self._lines.items():
            self._connect(name, line, now_ns, fold, commands)
        if wall_ns >= self.blocked_wall_ns and self._connected_ns:
            for about, request, tries in self._wanted(now_ns, fold):
                if not self.budget.take(request.weight, wall_ns):
                    break
                need = self._needs[_key(about)]
                need.busy, need.tries = True, need.tries + 1
                final = {"final": tries >= PRINT_TRIES} if about["purpose"] == "prints" else {}
                if about["purpose"] == "snapshot":
                    noted = {key: about[key] for key in ("symbol", "generation")}
                    commands.append(Note("snapshot_request", {**noted, "attempt": tries}))
                commands.append(Fetch(request, {**about, **final}))
        return commands

    def _connect(self, name: str, line: Line, now_ns: int, fold: Fold, commands: list[Command]) -> None:
        """Open the line's connection, or one that stands by to take over."""
        if line.opening is not None:
            return
        standby = bool(line.opened_ns)
        if len(line.opened_ns) > 1 or (standby and not self._is_due(line, now_ns, fold)):
            return
        if now_ns < line.retry_ns or not self._pace.allows(now_ns):
            return
        self._next_conn += 1
        line.opening = self._next_conn
        commands.append(Open(self._next_conn, name, line.path, standby))

    def _is_due(self, line: Line, now_ns: int, fold: Fold) -> bool:
        """True if another connection is to take over from the line's only one."""
        ((conn, opened_ns),) = line.opened_ns.items()
        announced = conn in fold.conns and fold.conns[conn].ending
        return announced or bool(line.renew) or now_ns - opened_ns >= self.settings.life_s * NS_PER_S

    def _watch(self, now_ns: int, recv_ns: int, fold: Fold, commands: list[Command]) -> None:
        """A stream that is silent while its peers speak: connect anew, which subscribes anew."""
        self._offset_ns, after_ns = recv_ns - now_ns, self._silent_ns
        for symbol, stream in fold.silent(recv_ns, after_ns, PEER_FRAMES):
            line = self._lines[self._line_of(stream)]
            if line.opened_ns and not line.renew and now_ns - line.renewed_ns >= after_ns:
                line.renew = f"{symbol} {stream} is silent"
                line.renewed_ns = now_ns
                commands.append(
                    Note("silence", {"symbol": symbol, "stream": stream, "after_s": self.settings.silent_s})
                )

    def _line_of(self, stream: str) -> str:
        route = self.venue.routes[stream]
        return next(name for name in self._lines if name.startswith(f"{route or '/'} "))

    def _wanted(self, now_ns: int, fold: Fold) -> Iterator[tuple[dict[str, Any], Request, int]]:
        """(about, request, which try) of everything that REST should be asked for now."""
        for symbol, generation, waits in fold.wants_snapshot():
            about = {"purpose": "snapshot", "symbol": symbol, "generation": generation}
            if waits or now_ns - self._connected_ns > QUIET_NS:
                yield from self._ask(about, generation, self.venue.depth(symbol), now_ns)
        for symbol, stream, first, last in fold.wants_prints():
            until = min(last, first + TRADES_LIMIT - 1)
            about = {"purpose": "prints", "symbol": symbol, "stream": stream, "first": first, "last": until}
            request = self.venue.prints(stream, symbol, first, until)
            yield from self._ask(about, first, request, now_ns, SETTLE_NS)
        for symbol, stream, last_id in fold.quiet(now_ns + self._offset_ns, self._silent_ns):
            about = {"purpose": "probe", "symbol": symbol, "stream": stream, "after": last_id}
            request = self.venue.prints(stream, symbol, last_id + 1, last_id + TRADES_LIMIT)
            for asked in self._ask(about, last_id, request, now_ns):
                need = self._needs[_key(about)]
                need.next_ns = now_ns + min(self._silent_ns << need.tries, PROBE_CAP_NS)
                yield asked
        slot = self._slot(now_ns, self.settings.info_s)
        if slot:
            yield from self._ask({"purpose": "info"}, slot, self.venue.info(self.symbols), now_ns, once=True)
        slot = self._slot(now_ns, self.settings.snapshot_s)
        for symbol in self.symbols if slot else ():
            about = {"purpose": "snapshot", "symbol": symbol, "generation": 0, "check": True}
            yield from self._ask(about, slot, self.venue.depth(symbol), now_ns, once=True)

    def _slot(self, now_ns: int, every_s: float) -> int:
        """Which of the stretches of `every_s` since the first connection this is; 0 is the first, or never."""
        return int((now_ns - self._connected_ns) / (every_s * NS_PER_S)) if every_s else 0

    def _ask(
        self,
        about: dict[str, Any],
        what: Any,
        request: Request,
        now_ns: int,
        settle_ns: int = 0,
        once: bool = False,
    ) -> Iterator[tuple[dict[str, Any], Request, int]]:
        """Ask, unless the same is under way or has to wait; another `what` starts with fresh patience.

        What is wanted `once` is not asked for again after an answer.
        """
        need = self._needs.setdefault(_key(about), Need(self._backoff()))
        if need.what != what:
            need.what, need.tries, need.next_ns = what, 0, max(need.next_ns if need.busy else 0, now_ns + settle_ns)
            need.backoff.succeed()
        if not need.busy and now_ns >= need.next_ns and not (once and need.done == what):
            yield about, request, need.tries + 1


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _key(about: Mapping[str, Any]) -> tuple[str, ...]:
    """One request at a time for each of these."""
    return (about["purpose"], about.get("symbol", ""), about.get("stream", ""), str(about.get("check", "")))
