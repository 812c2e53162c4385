"""Measured rows -> the tables of docs/paper.md. Bold: further from the paper than it should be."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.paper.found import Found
from benchmarks.paper.glft import REFERENCES, TUTORIAL, exact
from benchmarks.paper.market import RUN
from benchmarks.table import markdown
from mmlab.sim.quotes import glft

ERRORS = 3.0  # the most standard errors that a mean may be off
OFF, OFF_SYMMETRIC = 0.08, 0.10  # and the share that a deviation may be


def allowed(found: Found, profit: bool) -> float:
    """The tolerance of a deviation: wider for the profit of `symmetric` where gamma is small, see docs/paper.md."""
    wide = profit and found.row.strategy.name == "symmetric" and found.row.strategy.gamma < 1
    return OFF_SYMMETRIC if wide else OFF


def signed(z: float) -> str:
    """In standard errors, bold if too many."""
    text = f"{round(z, 1) + 0:+.1f}"
    return text if abs(z) <= ERRORS else f"**{text}**"


def off(share: float, most: float) -> str:
    """As a share, bold if too large."""
    text = f"{round(share, 3) + 0:+.1%}"
    return text if abs(share) <= most else f"**{text}**"


def labels(found: Found) -> tuple[str, str]:
    """The first two columns."""
    return f"{found.row.strategy.gamma:g}", found.row.strategy.name


def paper(found: Found, value: float) -> str:
    """A figure with the digits that the paper prints: one when published, two in the draft."""
    return f"{value:.{1 if found.row.strategy.version == 'published' else 2}f}"


def hundredths(value: float) -> str:
    """A position with two decimals, or with all that it has."""
    return f"{value:.2f}" if value == round(value, 2) else f"{value}"


def means(rows: Sequence[Found]) -> str:
    """Spread and mean profit."""
    lines = [
        (*labels(f), f"{f.spread:.3f}", f"{f.row.spread:.2f}",
         f"{f.simulated[0].mean:.2f} ± {f.expected[0].mean_error(f.paths):.2f}", f"{f.expected[0].mean:.2f}",
         f"{paper(f, f.row.profit)} ± {f.expected[0].mean_error(RUN):.2f}", signed(f.means()[0]))
        for f in rows
    ]  # fmt: skip
    head = (
        "gamma", "strategy", "average spread", "paper", "profit, simulated", "without chance", "paper", "z",
    )  # fmt: skip
    return markdown(head, lines)


def deviations(rows: Sequence[Found]) -> str:
    """Deviation of the profit; mean and deviation of the final position."""
    lines = []
    for f in rows:
        (share, z), (share_q, z_q) = f.deviations()
        lines.append(
            (*labels(f), f"{f.simulated[0].std:.2f}", f"{f.expected[0].std:.2f}", paper(f, f.row.std),
             off(share, allowed(f, True)), signed(z), f"{round(f.simulated[1].mean, 2) + 0:+.2f}", hundredths(f.row.q),
             signed(f.means()[1]), f"{f.simulated[1].std:.2f}", f"{f.expected[1].std:.2f}", paper(f, f.row.std_q),
             off(share_q, allowed(f, False)), signed(z_q))
        )  # fmt: skip
    head = (
        "gamma", "strategy", "std(profit)", "without chance", "paper", "off", "z", "final q", "paper", "z",
        "std(final q)", "without chance", "paper", "off", "z",
    )  # fmt: skip
    return markdown(head, lines)


def probability(linear: Sequence[Found], other: Sequence[Found]) -> str:
    """The same rows when a fill has the exact probability."""
    lines = [
        (*labels(f), f"{f.simulated[0].mean:.2f}", f"{f.expected[0].mean:.2f}",
         f"{f.expected[0].mean / known.expected[0].mean - 1:+.1%}", paper(f, f.row.profit), signed(f.means()[0]))
        for known, f in zip(linear, other, strict=True)
    ]  # fmt: skip
    head = ("gamma", "strategy", "profit, simulated", "without chance", "against linear", "paper", "z")
    return markdown(head, lines)


def quotes() -> str:
    """The closed form of sim/quotes.py, its reference numbers, and the exact quotes."""
    lines = []
    for r in REFERENCES:
        shift, half = (float(x) for x in glft(5.0, r.gamma, r.sigma**2, r.A, r.k))
        (bid_0, _), (bid_5, ask_5) = (exact(q, r.sigma, r.A, r.k, r.gamma) for q in (0, 5))
        lines.append(
            (f"{r.sigma:g}, {r.A:g}, {r.k:g}, {r.gamma:g}", beside(half, r.half, 6), beside(shift / 5, r.skew, 6),
             f"{bid_0:.5f}", f"{half + shift:.5f} / {half - shift:.5f}", f"{bid_5:.5f} / {ask_5:.5f}",
             f"{half + shift - bid_5:+.4f} / {half - shift - ask_5:+.4f}")
        )  # fmt: skip
    head = (
        "sigma, A, k, gamma", "half spread (reference)", "skew a unit (reference)", "exact bid at q = 0",
        "bid / ask at q = 5", "exact", "error of the closed form",
    )  # fmt: skip
    return f"{markdown(head, lines)}\n\n{tutorial()}"


def tutorial() -> str:
    """The worked example of another program's manual."""
    sigma, A, k, gamma, half, skew = TUTORIAL
    our_skew, our_half = glft(1.0, gamma, sigma**2, A, k)
    return (
        f"hftbacktest's tutorial (sigma {sigma:g}, A {A:.8f}, k {k:.8f}, gamma {gamma:g}): half spread {our_half:.8f}"
        f" (there {half:.8f}), skew {our_skew:.8f} (there {skew:.8f})."
    )


def beside(ours: float, reference: float, digits: int) -> str:
    """Both numbers, ours bold if it differs in the digits that are given."""
    text = f"{ours:.{digits}f}"
    return f"{text if text == f'{reference:.{digits}f}' else f'**{text}**'} ({reference:.{digits}f})"


def brief(rows: Sequence[Found]) -> str:
    """The table of benchmarks/README.md."""
    lines = [
        (*labels(f), f"{f.spread:.2f} / {f.row.spread:.2f}", f"{f.simulated[0].mean:.2f} / {paper(f, f.row.profit)}",
         signed(f.means()[0]), f"{f.simulated[0].std:.2f} / {paper(f, f.row.std)}",
         f"{f.simulated[1].std:.2f} / {paper(f, f.row.std_q)}")
        for f in rows
    ]  # fmt: skip
    head = ("gamma", "strategy", "average spread", "profit", "z", "std(profit)", "std(final q)")
    return markdown(head, lines)


def checked(rows: Sequence[Found]) -> str:
    """What was simulated, and that it agrees with what it is without chance; raises if it does not."""
    doubts = [abs(z) for f in rows for z in f.doubts()]
    beyond = sum(z > 2 for z in doubts)
    assert max(doubts) < 4.5, "the simulation does not agree with the recursion"
    return (
        f"These tables: {rows[0].paths:,} paths a row. Of the {len(doubts)} simulated means and deviations the one"
        f" furthest from its value without chance is {max(doubts):.1f} of our standard errors off;"
        f" {beyond} are more than 2 off."
    )
