"""When each stream last spoke: silence that its peers or REST prove, told apart from a market that is quiet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Pulse:
    """Knows of every (symbol, stream) when it last brought something, and what other prints came since."""

    def __init__(self) -> None:
        self.muted: set[tuple[str, str]] = set()  # streams of which REST knows more than they brought
        self._last: dict[tuple[str, str], tuple[int, int]] = {}  # -> when, prints of the symbol until then
        self._prints: dict[str, int] = {}

    def expect(self, symbol: str, kinds: Iterable[str], now_ns: int) -> None:
        """These streams are subscribed to."""
        for kind in kinds:
            self._last[symbol, kind] = (now_ns, 0)

    def beat(self, symbol: str, stream: str, now_ns: int) -> None:
        """A message came."""
        if stream in ("trade", "aggTrade"):
            self._prints[symbol] = self._prints.get(symbol, 0) + 1
        self._last[symbol, stream] = (now_ns, self._prints.get(symbol, 0))

    def silent(self, now_ns: int, after_ns: int, peers: int) -> Iterator[tuple[str, str]]:
        """Streams that brought nothing for `after_ns`, while `peers` prints of the symbol came; and the muted ones."""
        yield from self.muted
        self.muted.clear()
        for (symbol, stream), (last_ns, prints) in self._last.items():
            if now_ns - last_ns >= after_ns and self._prints.get(symbol, 0) - prints >= peers:
                yield symbol, stream

    def quiet(self, now_ns: int, after_ns: int) -> Iterator[tuple[str, str]]:
        """Tapes that brought nothing for `after_ns`: only REST knows if there was anything."""
        for (symbol, stream), (last_ns, _) in self._last.items():
            if stream in ("trade", "aggTrade") and now_ns - last_ns >= after_ns:
                yield symbol, stream
