"""What `mmlab grid optimize` prints: the robust parameters, how stable they are, and what held-out data say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mmlab.grid.config import coin_of

if TYPE_CHECKING:
    from mmlab.flows.grid_search import Optimized

BAR = 20
TITLE = "===== ROBUST PARAMETER REPORT ====="


def lines(made: Optimized) -> Iterator[str]:
    """The report, line by line."""
    result, found = made.result, made.cluster
    width = max(map(len, found.params))
    used, trials = result["top_trials_used"], result["num_trials"]
    yield from ("", TITLE, *([result["label"].upper()] if "label" in result else []))
    yield from (f"(Top {used} of {trials} trials used; study {result['study']})", "")
    yield "Robust Parameters (median of top cluster):"
    for name, value in found.params.items():
        yield f"  {name:{width}}  {text(value):>10}  (default: {text(getattr(made.defaults, name))})"
    yield from ("", "Parameter Stability (spread against uniform draws: 1 says nothing; p: against chance):")
    for name, each in found.stability.items():
        bar = "█" * round(BAR * min(each.spread, 1.0))
        yield f"  {name:{width}}  {each.spread:.3f}  p={each.p_value:.3f}  {bar:{BAR}}  [{each.label}]"
    yield ""
    yield f"Overall Robustness Score: {found.score:.4f} (p={found.p_value:.3f})"
    yield f"Interpretation: {found.label} - {found.meaning}"
    yield from ("", *judgement(result))


def judgement(result: dict[str, Any]) -> Iterator[str]:
    """Train, held-out, significance, hold-out."""
    yield "Scores of the robust set, by window (train / held out; defaults in brackets):"
    for k, coin in enumerate(result["coins"]):
        own = zip(result["train_scores"][k], result["test_scores"][k], strict=True)
        plain = zip(result["default_train_scores"][k], result["default_test_scores"][k], strict=True)
        cells = (f"{a:.2f} / {b:.2f} [{c:.2f} / {d:.2f}]" for (a, b), (c, d) in zip(own, plain, strict=True))
        yield f"  {coin_of(coin):6}  {'   '.join(cells)}"
    word = "PASS" if result["oos_pass"] else "FAIL"
    yield (
        f"Held-out windows: {word} - mean score {result['oos_mean_score']:.3f}, "
        f"{result['oos_positive']} of {result['oos_windows']} above 0"
    )
    if result["mc_p_value"] is None:
        yield "Significance: not tested (--skip-mc)"
    else:
        n = result["mc_perms"]
        word = "significant" if result["mc_significant"] else "not significant"
        yield (
            f"Significance: {word} at 5% - held-out log growth {100 * result['mc_growth']:+.2f}%, p = "
            f"{result['mc_p_value']:.3f} against {n} markets without an edge (p cannot be below {1 / (n + 1):.3f})"
        )
    for coin, score in result["holdout"].items():
        yield (
            f"Hold-out of {coin_of(coin)}, seen once: return {100 * score['total_return']:+.2f}%, drawdown "
            f"{100 * score['max_drawdown']:.2f}%, {score['trades']} trades, score {score['value']:.3f}"
        )


def text(value: object) -> str:
    """A parameter as the report shows it."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
