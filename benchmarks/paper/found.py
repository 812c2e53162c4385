"""One row measured: what the simulated accounts give, what it is without chance, and how far the paper is from it."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.paper.market import RUN, Floats, Market, simulate
from benchmarks.paper.moments import Moments, moments
from benchmarks.paper.printed import Row


@dataclass(frozen=True)
class Found:
    """A row of the paper beside ours; `simulated` and `expected` are (profit, final position)."""

    row: Row
    rule: str
    paths: int
    spread: float
    simulated: tuple[Moments, Moments]
    expected: tuple[Moments, Moments]
    profit: Floats  # path by path

    def means(self) -> tuple[float, float]:
        """How far the paper's mean profit and mean position are from ours, in standard errors of its 1,000 paths."""
        printed = zip((self.row.profit, self.row.q), self.simulated, self.expected, strict=True)
        profit, q = ((paper - ours.mean) / known.mean_error(RUN) for paper, ours, known in printed)
        return profit, q

    def deviations(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The same for both deviations: (as a share of ours, in standard errors of 1,000 paths)."""
        printed = zip((self.row.std, self.row.std_q), self.simulated, self.expected, strict=True)
        profit, q = (
            (paper / ours.std - 1, (paper - ours.std) / known.std_error(RUN)) for paper, ours, known in printed
        )
        return profit, q

    def doubts(self) -> list[float]:
        """How far mean and deviation of both are from those without chance, in standard errors of our paths."""
        return [
            z
            for ours, known in zip(self.simulated, self.expected, strict=True)
            for z in (
                (ours.mean - known.mean) / known.mean_error(self.paths),
                (ours.std - known.std) / known.std_error(self.paths),
            )
        ]


def measure(market: Market, row: Row, rule: str, paths: int, seed: int) -> Found:
    """Simulate and compute one row."""
    got = simulate(market, row.strategy, rule, paths, seed)
    simulated = Moments.sample(got.profit), Moments.sample(got.lots.astype(float))
    return Found(row, rule, paths, got.spread, simulated, moments(market, row.strategy, rule), got.profit)
