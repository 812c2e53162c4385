"""The one writer of benchmarks/README.md: each benchmark owns the text between its two marks."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

README = Path(__file__).parent / "README.md"


@dataclass(frozen=True)
class Timing:
    """Seconds of several runs of one call, and what the last one returned."""

    runs: tuple[float, ...]
    result: object

    @property
    def median(self) -> float:
        """The figure to quote."""
        return sorted(self.runs)[len(self.runs) // 2]


def time_pairs(baseline: Callable[[], object], *others: Callable[[], object], repeats: int = 9) -> list[Timing]:
    """Run the calls in turn, A B C A B C, so that ratios hold when the machine's speed drifts."""
    calls = (baseline, *others)
    seconds: list[list[float]] = [[] for _ in calls]
    results: list[object] = [call() for call in calls]  # the warm-up
    for _ in range(repeats):
        for i, call in enumerate(calls):
            began = time.perf_counter()
            results[i] = call()
            seconds[i].append(time.perf_counter() - began)
    return [Timing(tuple(s), r) for s, r in zip(seconds, results, strict=True)]


def ratio(of: Timing, to: Timing) -> float:
    """Median of the ratios, pair by pair."""
    pairs = sorted(a / b for a, b in zip(of.runs, to.runs, strict=True))
    return pairs[len(pairs) // 2]


def peak_mib() -> float:
    """Most memory this process ever held, MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def write(name: str, text: str, page: Path = README) -> None:
    """Replace the text between `<!-- name -->` and `<!-- /name -->` in a page."""
    head, rest = page.read_text().split(f"<!-- {name} -->\n", 1)
    _, tail = rest.split(f"<!-- /{name} -->", 1)
    page.write_text(f"{head}<!-- {name} -->\n{text}\n<!-- /{name} -->{tail}")
    print(f"\n{name}\n{text}")


def machine() -> str:
    """What the figures were measured on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("polars", "duckdb", "numpy", "numba"))
    return f"Python {platform.python_version()}, {packages}, 2 cores ({platform.machine()})"
