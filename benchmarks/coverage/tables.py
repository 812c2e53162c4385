"""Rows of `fits` beside their truths -> the tables of docs/coverage.md. Bold: coverage outside 93 to 97%."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from benchmarks.coverage import markets
from benchmarks.coverage.studies import PRINTS_PER_ORDER
from benchmarks.table import markdown
from mmlab.calib.points import Floats
from mmlab.core.schemas import FAMILIES

LOW, HIGH = 0.93, 0.97
FISHER, ROBUST = "", "_robust"
KEYS = ["count_rule", "fit_method"]


def covered(rows: pl.DataFrame, name: str, errors: str, truth: str | float | None = None) -> float:
    """Share of intervals of `name` that hold the truth (a column or a number); no interval is a miss."""
    known = pl.lit(truth) if isinstance(truth, float) else pl.col(truth or f"true_{name}")
    inside = known.is_between(pl.col(f"{name}_low{errors}"), pl.col(f"{name}_high{errors}"))
    return float(rows.select(inside.fill_null(value=False).mean()).item())


def mean(values: pl.Series) -> float:
    """Mean as a plain number; no value counts as none."""
    return float(np.mean(values.drop_nulls().to_numpy()))


def share(value: float, naive: bool = False) -> str:
    """A coverage, bold if it misses; marked where nobody should expect it to hold."""
    text = f"{value:.1%}"
    return (text if LOW <= value <= HIGH else f"**{text}**") + (" (naive)" if naive else "")


def errors_of(rows: pl.DataFrame, name: str) -> tuple[Floats, float]:
    """Errors of ln A or of k, and what they are a share of."""
    if name == "A":
        return np.log(rows["A"].to_numpy() / rows["true_A"].to_numpy()), 1.0
    return (rows["k"] - rows["true_k"]).to_numpy(), float(rows["true_k"][0])


def bias(rows: pl.DataFrame, name: str) -> str:
    """Mean error and its standard error, as a share of the truth."""
    error, unit = errors_of(rows, name)
    return f"{error.mean() / unit:+.2%} ± {error.std(ddof=1) / np.sqrt(error.size) / unit:.2%}"


def spreads(rows: pl.DataFrame, name: str) -> list[str]:
    """Scatter of the estimates, and the mean of both stated standard errors, as shares of the truth."""
    error, unit = errors_of(rows, name)
    column = "se_log_A" if name == "A" else "se_k"
    stated = [mean(rows[f"{column}{kind}"]) for kind in (FISHER, ROBUST)]
    return [f"{value / unit:.2%}" for value in (float(error.std(ddof=1)), *stated)]


def both_sides(rows: pl.DataFrame) -> pl.DataFrame:
    """The exponential, sides pooled."""
    return rows.filter((pl.col("side") == "both") & (pl.col("family") == FAMILIES[0]))


def constant(rows: pl.DataFrame) -> str:
    """Bias, scatter, errors and coverage of each estimator; and a line on single sides."""
    lines = []
    for (count, method), own in both_sides(rows).group_by(KEYS, maintain_order=True):
        for name in "Ak":
            fisher = share(covered(own, name, FISHER), naive=method != "nested_mle")
            robust = share(covered(own, name, ROBUST))
            lines.append((count, method, name, bias(own, name), *spreads(own, name), fisher, robust))
    head = (
        "count", "estimator", "of", "bias", "scatter", "mean Fisher s.e.", "mean robust s.e.", "Fisher covers",
        "robust covers",
    )  # fmt: skip
    return f"{markdown(head, lines)}\n\n{_single_sides(rows)}"


def _single_sides(rows: pl.DataFrame) -> str:
    """How well bid and ask are covered, each by itself."""
    single = rows.filter((pl.col("side") != "both") & (pl.col("family") == FAMILIES[0]))
    nested = single.filter(pl.col("fit_method") == "nested_mle")

    def reach(of: pl.DataFrame, errors: str) -> str:
        cells = [covered(c, n, errors) for _, c in of.group_by("side", *KEYS, maintain_order=True) for n in "Ak"]
        return f"{min(cells):.1%} to {max(cells):.1%}"

    return (
        f"Bid and ask, each by itself: over A, k and both counting rules `nested_mle`'s Fisher intervals cover\n"
        f"{reach(nested, FISHER)}, and the robust ones of all three estimators {reach(single, ROBUST)}."
    )


def _four(rows: pl.DataFrame) -> list[str]:
    """Fisher's and the robust coverage of A and of k."""
    return [share(covered(rows, name, errors)) for errors in (FISHER, ROBUST) for name in "Ak"]


FOUR = ("Fisher covers A", "Fisher covers k", "robust covers A", "robust covers k")


def inside(rows: pl.DataFrame) -> str:
    """Windows that lie within one piece: all of them, and piece by piece."""
    lines = []
    for (count,), own in rows.filter(pl.col("what") == "inside").group_by("count_rule", maintain_order=True):
        lines.append((count, "all", f"{own.height:,}", f"{mean(own['fills_total']):.0f}", *_four(own)))
        for piece, (_, A, k) in enumerate(markets.PIECES):
            of = own.filter(pl.col("piece") == piece)
            lines.append((count, f"{A:g} / {k:g}", f"{of.height:,}", f"{mean(of['fills_total']):.0f}", *_four(of)))
    return markdown(("count", "true A / k", "windows", "hits at 1 tick", *FOUR), lines)


def across(rows: pl.DataFrame) -> str:
    """Windows over two pieces, against the exponential nearest to their mean."""
    lines = []
    for (piece,), own in rows.filter(pl.col("what") == "across").group_by("piece", maintain_order=True):
        pieces = [(A, k) for _, A, k in markets.PIECES[piece : piece + 2]]
        nearest = markets.mixture(pieces)
        shown = " and ".join(f"{A:g} / {k:g}" for A, k in pieces)
        rejected = mean(own["p_value"] < 0.05)
        truth = f"{nearest[0]:.4f} / {nearest[1]:.4f}"
        lines.append((shown, truth, bias(own, "A"), bias(own, "k"), *_four(own), f"{rejected:.1%}"))
    return markdown(("A / k", "nearest A / k", "bias of A", "bias of k", *FOUR, "p < 0.05"), lines)


def _market(stay_s: float, hours: float) -> str:
    return f"{stay_s:g} s, {hours:g} h"


def bursts(rows: pl.DataFrame) -> str:
    """Bursting markets under `sweeps`: what each interval covers."""
    lines = []
    kept = rows.filter(pl.col("count_rule") == "sweeps")
    for (stay_s, hours, method), own in kept.group_by("stay_s", "hours", "fit_method", maintain_order=True):
        naive = method != "nested_mle"
        lines.append(
            (
                _market(stay_s, hours), method, bias(own, "A"), *spreads(own, "A"),
                share(covered(own, "A", FISHER, "realised_A"), naive), share(covered(own, "A", FISHER)),
                share(covered(own, "A", ROBUST, "realised_A")), share(covered(own, "A", ROBUST)),
                share(covered(own, "k", FISHER), naive), share(covered(own, "k", ROBUST)),
                f"{mean(own['burstiness']):.1f}", f"{mean(own['p_value'] < 0.05):.1%}",
            )
        )  # fmt: skip
    head = (
        "mean stay, span", "estimator", "bias of A", "scatter of ln A", "Fisher s.e.", "robust s.e.",
        "Fisher covers own mean A", "Fisher covers long-run A", "robust covers own mean A",
        "robust covers long-run A", "Fisher covers k", "robust covers k", "dispersion", "p < 0.05",
    )  # fmt: skip
    return markdown(head, lines)


def bursts_first_hit(rows: pl.DataFrame) -> str:
    """The same markets under `first_hit`, which weighs the quiet times more."""
    lines = []
    kept = rows.filter(pl.col("count_rule") == "first_hit")
    for (stay_s, hours, method), own in kept.group_by("stay_s", "hours", "fit_method", maintain_order=True):
        middle = {"A": float(np.exp(mean(own["A"].log()))), "k": mean(own["k"])}
        naive = method != "nested_mle"
        lines.append(
            (
                _market(stay_s, hours), method, f"{middle['A']:.3f}", f"{middle['k']:.4f}",
                f"{mean(own['ring_excess']):+.1%}", *(share(covered(own, name, ROBUST)) for name in "Ak"),
                *(share(covered(own, name, FISHER, middle[name]), naive) for name in "Ak"),
                *(share(covered(own, name, ROBUST, middle[name])) for name in "Ak"),
                f"{mean(own['p_value'] < 0.05):.1%}",
            )
        )  # fmt: skip
    head = (
        "mean stay, span", "estimator", "mean A", "mean k", "ring excess", f"robust covers A = {markets.A:g}",
        f"robust covers k = {markets.K:g}", "Fisher covers mean A", "Fisher covers mean k", "robust covers mean A",
        "robust covers mean k", "p < 0.05",
    )  # fmt: skip
    return markdown(head, lines)


def sweeps(rows: pl.DataFrame) -> str:
    """Mean estimates as orders print more often; and whether those of each market changed at all."""
    lines = []
    base = rows.filter((pl.col("count_rule") == "sweeps") & (pl.col("prints_per_order") == 1))
    for prints in PRINTS_PER_ORDER:
        own = rows.filter(pl.col("prints_per_order") == prints)
        by_rule = {count: own.filter(pl.col("count_rule") == count) for count in ("first_hit", "sweeps", "all_hits")}
        cells = [f"{mean(of['A']):.4f} / {mean(of['k']):.4f}" for of in by_rule.values()]
        inflated = mean(by_rule["all_hits"]["fills_total"]) / mean(base["fills_total"])
        lines.append((prints, f"{mean(own['prints']):,.0f}", *cells, f"{inflated:.2f}"))
    head = ("prints an order", "prints a market", "first_hit: A / k", "sweeps: A / k", "all_hits: A / k")
    table = markdown((*head, "hits at 1 tick, all_hits to orders"), lines)
    return f"{table}\n\n{_unchanged(rows)}"


def _unchanged(rows: pl.DataFrame) -> str:
    """Compare each market's estimates under the rules that count an order once, whatever it printed."""
    once = rows.filter(pl.col("count_rule") != "all_hits").group_by("seed", "count_rule")
    different = once.agg(n=pl.struct("A", "k", "A_low", "A_high", "k_low", "k_high").n_unique()).filter(pl.col("n") > 1)
    n = rows["seed"].n_unique()
    if different.is_empty():
        return f"`first_hit` and `sweeps` gave the same estimates and intervals, digit by digit, in all {n} markets."
    return f"**{different.height} of {2 * n} estimates under `first_hit` and `sweeps` changed.**"


def million(rows: pl.DataFrame) -> str:
    """Bias at a million prints, in the mean and at worst."""
    lines = []
    for (count, method), own in rows.group_by(KEYS, maintain_order=True):
        cells = []
        for name in "Ak":
            error, unit = errors_of(own, name)
            cells += [bias(own, name), f"{np.abs(error).max() / unit:.2%}"]
        lines.append((count, method, f"{min(own['prints'].to_list()):,}", *cells))
    head = ("count", "estimator", "prints, at least", "bias of A", "worst of A", "bias of k", "worst of k")
    return markdown(head, lines)


def families(rows: pl.DataFrame) -> str:
    """How often the true curve is called wrong, and which family the information criterion picks."""
    lines = []
    pooled = rows.filter(pl.col("side") == "both")
    for (count, method), own in pooled.group_by(KEYS, maintain_order=True):
        p = own.filter(pl.col("family") == FAMILIES[0])["p_value"]
        best = own.sort("seed", "aic", nulls_last=True).group_by("seed", maintain_order=True).first()["family"]
        picks = [f"{mean(best == family):.1%}" for family in FAMILIES]
        lines.append((count, method, f"{p.null_count()}", f"{mean(p < 0.05):.1%}", f"{mean(p):.3f}", *picks))
    head = ("count", "estimator", "without p", "p < 0.05", "mean p", *(f"AIC picks {name}" for name in FAMILIES))
    return markdown(head, lines)


def own(rows: pl.DataFrame) -> str:
    """Bias, scatter, errors and coverage of what a backtest's own orders give back."""
    lines = []
    for (quotes,), of in both_sides(rows).group_by(["quotes"], maintain_order=True):
        for name in "Ak":
            covers = [share(covered(of, name, kind)) for kind in (FISHER, ROBUST)]
            lines.append((quotes, name, f"{mean(of['fills']):,.0f}", bias(of, name), *spreads(of, name), *covers))
    head = (
        "quotes", "of", "fills", "bias", "scatter", "mean Fisher s.e.", "mean robust s.e.", "Fisher covers",
        "robust covers",
    )  # fmt: skip
    return markdown(head, lines)


def named(found: dict[str, pl.DataFrame]) -> Sequence[tuple[str, str]]:
    """(mark, text) of every table."""
    return (
        ("constant", constant(found["constant"])),
        ("inside", inside(found["changing"])),
        ("across", across(found["changing"])),
        ("bursts", bursts(found["bursts"])),
        ("bursts_first_hit", bursts_first_hit(found["bursts"])),
        ("sweeps", sweeps(found["sweeps"])),
        ("million", million(found["million"])),
        ("families", families(found["constant"])),
        ("own", own(found["own"])),
    )
