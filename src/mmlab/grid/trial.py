"""One trial of a search: a set of parameters run over every stretch of every coin, train and held-out kept apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mmlab.core.errors import UsageError
from mmlab.grid.engine import Raw, simulate
from mmlab.grid.market import Market
from mmlab.grid.params import GridParams, VenueParams
from mmlab.grid.score import Part, Score, chained
from mmlab.grid.space import Space
from mmlab.grid.windows import FEWEST_BARS, Span, Windows

OBJECTIVE = "min over coins and windows of the train scores, 1"  # another text for another meaning
YEAR_NS = 365 * 86_400 * 1_000_000_000


@dataclass(frozen=True)
class Outcome:
    """Scores by coin, then window. Only `value` is searched by; `test` is told, never used."""

    train: tuple[tuple[Score, ...], ...]
    test: tuple[tuple[Score, ...], ...]

    @property
    def value(self) -> float:
        """The pessimistic objective: the worst train score of all coins and windows."""
        return min(each.value for coin in self.train for each in coin)


@dataclass(frozen=True)
class Bench:
    """All that a trial is run on, beside its parameters; markets end where the search's span ends."""

    coins: tuple[str, ...]
    markets: tuple[Market, ...]
    venues: tuple[VenueParams, ...]
    windows: Windows
    base: GridParams

    def __post_init__(self) -> None:
        """Raise UsageError for a coin whose bars leave a stretch too short."""
        for coin, market in zip(self.coins, self.markets, strict=True):
            for span in (*self.windows.train, *self.windows.test):
                low, high = span.bars(market.open_ns)
                if high - low < FEWEST_BARS:
                    raise UsageError(
                        f"{coin} has {high - low} bars from {span}, fewer than {FEWEST_BARS}",
                        remedy="give fewer --windows, a longer span of days, or leave the coin out",
                    )

    @property
    def bars_a_year(self) -> float:
        """Bars in 365 days."""
        return YEAR_NS / self.markets[0].interval_ns

    def run(self, params: GridParams) -> Outcome:
        """Scores of these parameters; each stretch is run once, with a fresh account."""
        train, test = [], []
        for market, venue in zip(self.markets, self.venues, strict=True):
            X = market.rows(params)
            learnt = [self.part(market, X, venue, params, span) for span in self.windows.train]
            held = [self.part(market, X, venue, params, span) for span in self.windows.test]
            train.append(tuple(chained(learnt[: k + 1], self.bars_a_year) for k in range(len(learnt))))
            test.append(tuple(chained([part], self.bars_a_year) for part in held))
        return Outcome(tuple(train), tuple(test))

    @staticmethod
    def part(market: Market, X: Any, venue: VenueParams, params: GridParams, span: Span) -> Part:
        """One stretch of one coin."""
        return Part.of(stretch(market, X, venue, params, span), params.initial_capital)

    def fingerprint(self, space: Space) -> dict[str, str]:
        """What makes trials of two searches comparable, by part: checksums of texts and of the data's bytes."""
        data = hashlib.sha256()
        for coin, market in zip(self.coins, self.markets, strict=True):
            data.update(f"{coin} {market.interval_ns} {len(market)} {len(market.candles)}".encode())
            for values in (market.open_ns, *market.bars.values(), market.candles, market.first_candle, market.rate):
                data.update(np.ascontiguousarray(values).tobytes())
        return {
            "objective": OBJECTIVE,
            "coins": " ".join(self.coins),
            "data": data.hexdigest(),
            "windows": digest(asdict(self.windows)["train"] + asdict(self.windows)["test"]),
            "space": digest({name: asdict(each) for name, each in space.items()}),
            "fixed parameters": digest({k: v for k, v in asdict(self.base).items() if k not in space}),
            "venue": digest([asdict(venue) for venue in self.venues]),
        }


def stretch(
    market: Market, X: Any, venue: VenueParams, params: GridParams, span: Span, *, record: bool = False
) -> Raw:  # fmt: skip
    """Run the bars of a span with a fresh account; what lies before is known by signals only."""
    low, high = span.bars(market.open_ns)
    return simulate(X, market.candles, params, venue, low=low, high=high, record=record)


def digest(content: Any) -> str:
    """Checksum of what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def refuse_other(kept: Mapping[str, str], own: Mapping[str, str], study: str) -> None:
    """Raise UsageError naming what differs from the study that is there."""
    other = [name for name in own if kept.get(name) != own[name]]
    if other:
        raise UsageError(
            f"study {study} was made with other {', other '.join(other)}: its trials cannot be compared with these",
            remedy="give another --study-name, or the flags that the study was begun with",
        )


def figures(scores: Sequence[Sequence[Score]]) -> list[list[dict[str, float]]]:
    """Scores as plain numbers, by coin and window."""
    return [[asdict(each) for each in coin] for coin in scores]
