"""`python -m benchmarks.bench_paper [paths]`: Avellaneda and Stoikov (2008), Tables 1 to 3. Rewrites docs/paper.md.

The same number of paths gives the same tables and the same picture.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.paper import tables
from benchmarks.paper.figure import profits
from benchmarks.paper.found import measure
from benchmarks.paper.market import RULES, Market
from benchmarks.paper.printed import DRAFT, PUBLISHED
from benchmarks.table import write
from mmlab.report.canvas import png

DOCS = Path(__file__).parent.parent / "docs"
PAGE, PICTURE = DOCS / "paper.md", DOCS / "paper.png"
PATHS, SEED = 50_000, 2008


def main() -> None:
    """Measure all rows, then write."""
    paths = int(sys.argv[1]) if len(sys.argv) > 1 else PATHS
    market, (linear, exact) = Market(), RULES
    published = [measure(market, row, linear, paths, SEED) for row in PUBLISHED]
    other = [measure(market, row, exact, paths, SEED) for row in PUBLISHED]
    draft = [measure(market, row, linear, paths, SEED) for row in DRAFT]
    write("paths", tables.checked([*published, *other, *draft]), PAGE)
    write("means", tables.means(published), PAGE)
    write("deviations", tables.deviations(published), PAGE)
    write("probability", tables.probability(published, other), PAGE)
    write("draft", tables.means(draft), PAGE)
    write("draft_deviations", tables.deviations(draft), PAGE)
    write("glft", tables.quotes(), PAGE)
    PICTURE.write_bytes(png(profits(published[:2])))
    write("paper", tables.brief(published))


if __name__ == "__main__":
    main()
