"""What the paper prints: Tables 1 to 3 as published, and those of the draft of 5 October 2006."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.paper.market import Strategy


@dataclass(frozen=True)
class Row:
    """A strategy and its line of a table."""

    strategy: Strategy
    spread: float
    profit: float
    std: float
    q: float
    std_q: float


def table(version: str, gamma: float, *lines: tuple[float, float, float, float, float]) -> tuple[Row, Row]:
    """Both lines of one table, inventory first."""
    inventory, symmetric = (
        Row(Strategy(version, gamma, name), *line) for name, line in zip(("inventory", "symmetric"), lines, strict=True)
    )
    return inventory, symmetric


PUBLISHED = (
    *table("published", 0.1, (1.49, 65.0, 6.6, 0.08, 2.9), (1.49, 68.4, 12.7, 0.26, 8.4)),
    *table("published", 0.01, (1.35, 68.6, 8.7, 0.12, 5.1), (1.35, 68.8, 12.8, 0.09, 8.7)),
    *table("published", 1.0, (3.02, 31.4, 5.0, 0.02, 1.7), (3.02, 44.0, 11.0, 0.00, 5.1)),
)
DRAFT = (
    *table("draft", 0.1, (1.29, 62.94, 5.89, 0.10, 2.80), (1.29, 67.21, 13.43, -0.018, 8.66)),
    *table("draft", 0.01, (1.33, 66.78, 8.76, -0.02, 4.70), (1.33, 67.36, 13.40, -0.31, 8.65)),
    *table("draft", 0.5, (1.15, 33.92, 4.72, -0.02, 1.88), (1.15, 66.20, 14.53, 0.25, 9.06)),
)
