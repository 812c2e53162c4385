"""The table `fill_models` side by side, and what each fill model assumes (sim/spec.py, FillSpec, at length)."""

from __future__ import annotations

import polars as pl

from mmlab.core.schemas import COMPONENTS
from mmlab.report.sweep_cells import wide

HORIZON_S = 5  # after which adverse selection ends
SHOWN = ("pnl_total", *COMPONENTS, "fills", "fill_ratio", "max_drawdown", "sharpe")
ASSUMES = {
    "trade_cross touch": "A print at the order's price or beyond fills it, as if no queue stood before it: it flatters "
    "at the touch.",
    "trade_cross queue": "A print beyond the price fills it, or one at the price once prints have consumed the queue "
    "that was shown before it: flatters where hidden orders come first, harsh where it joined its level early.",
    "trade_cross through": "Only a print at least a tick beyond the price fills it, as if it were always the last of "
    "its queue: a lower bound of the fills.",
    "price_cross touch": "A book whose other side reaches the order fills it: it knows nothing of fills at the touch, "
    "and flatters a large order, as each frame shows its quantity anew.",
    "price_cross through": "A book whose other side lies a tick beyond the order fills it: harsher than touch, and it "
    "still flatters a large order, as each frame shows its quantity anew.",
    "poisson": "It is filled whole after a random wait whose rate is A exp(-k delta): it knows nothing of who trades "
    "against it, hence no adverse selection, which flatters.",
    "hybrid touch": "Prints at its price or beyond and the chance of poisson race: the sum of both flatters, unless "
    "(A, k) count what prints do not show.",
    "hybrid queue": "Prints that reach it after its queue and the chance of poisson race: the sum of both flatters, "
    "unless (A, k) count what prints do not show.",
    "hybrid through": "Prints beyond its price and the chance of poisson race: the sum of both flatters, unless "
    "(A, k) count what prints do not show.",
}


def name(model: str, reach: str) -> str:
    """What a fill model is called: poisson fills have no reach."""
    return model if model == "poisson" else f"{model} {reach}"


def side_by_side(fill_models: pl.DataFrame) -> pl.DataFrame:
    """One row a fill model, in the order of the runs: its name, its figures, and the parts of its profit."""
    rows = (
        wide(fill_models)
        .drop(COMPONENTS, strict=False)
        .join(parts(fill_models), on="number", how="left", maintain_order="left")
    )
    names = [name(*row) for row in rows.select("fill_model", "fill_reach").iter_rows()]
    return rows.select(pl.Series("model", names, pl.String), *SHOWN)


def parts(fill_models: pl.DataFrame) -> pl.DataFrame:
    """The parts of each run's profit; `fees` is what they cost it, and takes the place of the metric of that name."""
    return (
        fill_models.filter(pl.col("role") == "part")
        .pivot(on="name", index="number", values="value")
        .select("number", *COMPONENTS)
    )


def assumptions(fill_models: pl.DataFrame) -> pl.DataFrame:
    """One row a fill model that was run: its name, and when it can be trusted."""
    names = side_by_side(fill_models)["model"]
    return pl.DataFrame({"model": names, "assumes": [ASSUMES[model] for model in names]})
