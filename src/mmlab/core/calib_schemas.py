"""The tables of calibration, declared once: what probes met, the curves, the schedule, and its judgement."""

from __future__ import annotations

import polars as pl

from mmlab.core.table import Column, Table

QUOTE_SIDES = ("bid", "ask", "both")
COUNT_RULES = ("first_hit", "sweeps", "all_hits")
FIT_METHODS = ("poisson_mle", "log_linear", "nested_mle")
FAMILIES = ("exponential", "power_law", "monotone")
PREDICTORS = ("fit", "constant", "last_window")

PROBE_SIDE = Column("side", pl.String, "bid, ask, or both pooled (hits and exposures added)", values=QUOTE_SIDES)
COUNT_RULE = Column("count_rule", pl.String, "which hits of a probe count", values=COUNT_RULES)
FAMILY = Column("family", pl.String, "shape of the curve", values=FAMILIES)
DISTANCE = Column("delta_ticks", pl.Float64, "distance from the mid: whole for probes, halves for orders", "ticks")
START = Column("start_ns", pl.Int64, "start of the step, inclusive", "ns UTC")
END = Column("end_ns", pl.Int64, "end of the step, exclusive", "ns UTC")
TRAIN = (
    Column("train_start_ns", pl.Int64, "start of the training span, inclusive", "ns UTC"),
    Column("train_end_ns", pl.Int64, "end of the training span, exclusive", "ns UTC"),
)


def _interval(name: str, what: str, unit: str, suffix: str = "") -> tuple[Column, Column]:
    """The two ends of a 95% interval."""
    return (
        Column(f"{name}_low{suffix}", pl.Float64, f"{what}, lower end", unit, True),
        Column(f"{name}_high{suffix}", pl.Float64, f"{what}, upper end", unit, True),
    )


POINTS = Table(
    "points",
    "exposure and hits of the probes at one distance and side in one time bucket (sums are additive)",
    (
        Column("bucket_start_ns", pl.Int64, "start of the bucket, inclusive", "ns UTC"),
        Column("bucket_end_ns", pl.Int64, "end of the bucket, exclusive", "ns UTC"),
        PROBE_SIDE,
        DISTANCE,
        COUNT_RULE,
        Column("exposure_ns", pl.Int64, "time at risk, an exact integer", "ns", low=0),
        Column("exposure_s_total", pl.Float64, "time at risk", "s", low=0.0),
        Column("fills_total", pl.Int64, "hits", low=0),
        Column("ring_fills", pl.Int64, "hits that reached this distance but not the next one", low=0),
        Column("qty_total", pl.Float64, "quantity of the prints counted", "base currency", low=0.0),
        Column("lambda_total", pl.Float64, "fills_total / exposure_s_total; null without exposure", "1/s", True),
        Column("lambda_qty", pl.Float64, "qty_total / exposure_s_total; null without exposure", "base/s", True),
        Column("usable", pl.Boolean, "exposure reaches the minimum asked for"),
    ),
    key=("bucket_start_ns", "side", "delta_ticks"),
    order=("bucket_start_ns",),
)

FITS = Table(
    "fits",
    "one curve fitted to the points of one training span and side",
    (
        *TRAIN,
        PROBE_SIDE,
        FAMILY,
        Column("fit_method", pl.String, "estimator", values=FIT_METHODS),
        COUNT_RULE,
        Column("A", pl.Float64, "exponential: intensity at the mid; power law: at one tick; one side", "1/s", True),
        Column("k", pl.Float64, "exponential: decay", "1/tick", True),
        Column("exponent", pl.Float64, "power law: lambda = A delta^-exponent", "1", True),
        Column("se_log_A", pl.Float64, "standard error of ln A, from the Fisher information", "1", True),
        Column("se_k", pl.Float64, "standard error of k, likewise", "1/tick", True),
        Column("se_exponent", pl.Float64, "standard error of the exponent, likewise", "1", True),
        *_interval("A", "95% interval of A", "1/s"),
        *_interval("k", "95% interval of k", "1/tick"),
        Column("se_log_A_robust", pl.Float64, "standard error of ln A, clustered over blocks of time", "1", True),
        Column("se_k_robust", pl.Float64, "standard error of k, likewise", "1/tick", True),
        *_interval("A", "95% interval of A that bursts do not narrow", "1/s", "_robust"),
        *_interval("k", "95% interval of k that bursts do not narrow", "1/tick", "_robust"),
        Column(
            "ring_excess",
            pl.Float64,
            "what the rings' rates add up to over the rate measured at the nearest distance, less 1: above 0 where "
            "prints follow one another outwards, and nested_mle under first_hit overstates by as much",
            "1",
            True,
        ),
        Column("blocks", pl.Int64, "blocks of time that the robust errors are clustered over", low=0),
        Column("log_likelihood", pl.Float64, "of the disjoint counts, natural logarithm", "1", True),
        Column("n_params", pl.Int64, "parameters of the curve", low=0),
        Column("aic", pl.Float64, "2 n_params - 2 log_likelihood; the lowest of a span and side fits best", "1", True),
        Column("deviance", pl.Float64, "Poisson deviance of the disjoint counts", "1", True),
        Column("dispersion", pl.Float64, "their Pearson chi-square per degree of freedom", "1", True),
        Column("p_value", pl.Float64, "chance of so large a deviance if the curve is right", "1", True, low=0.0),
        Column("points_used", pl.Int64, "distances with enough exposure", low=0),
        Column("fills_total", pl.Int64, "hits at the nearest usable distance", low=0),
        Column("exposure_s", pl.Float64, "time covered by probes on one side", "s", low=0.0),
        Column("ok", pl.Boolean, "the data identify the curve"),
        Column("reason", pl.String, "why not, empty when ok"),
    ),
    key=("train_start_ns", "train_end_ns", "side", "family"),
)

CURVES = Table(
    "curves",
    "the intensity that one fitted curve gives at one distance",
    (*TRAIN, PROBE_SIDE, FAMILY, DISTANCE, Column("rate", pl.Float64, "fitted intensity, one side", "1/s", low=0.0)),
    key=("train_start_ns", "train_end_ns", "side", "family", "delta_ticks"),
)

WINDOWS = Table(
    "windows",
    "one step of a schedule: the parameters in force and the past they were fitted on",
    (
        START,
        END,
        *TRAIN,
        Column("A", pl.Float64, "intensity at the mid, one side; null before the first good fit", "1/s", True),
        Column("k", pl.Float64, "decay; null before the first good fit", "1/tick", True),
        Column("source", pl.String, "fit, carried forward, or none yet", values=("fit", "carry_forward", "none")),
        Column("reason", pl.String, "why the window's own fit was not used, empty for a fit"),
        Column("age_steps", pl.Int64, "steps since the fit in force was made", nullable=True),
        Column("coverage", pl.Float64, "share of the training span covered by probes", "1", low=0.0),
        Column("fills_total", pl.Int64, "hits at the nearest usable distance, both sides", low=0),
    ),
    key=("start_ns",),
    order=("start_ns",),
)

WINDOW_METRICS = Table(
    "window_metrics",
    "what the market did in the training span of one step",
    (
        START,
        END,
        *TRAIN,
        Column("exposure_s", pl.Float64, "time covered by probes on one side", "s", low=0.0),
        Column("fills_total", pl.Int64, "hits at the nearest distance, both sides", low=0),
        Column(
            "dispersion",
            pl.Float64,
            "variance of those hits over blocks of time against a Poisson's: 1 without bursts",
            "1",
            True,
        ),
        Column("prints", pl.Int64, "prints on the tape", low=0),
        Column("trade_rate", pl.Float64, "prints a second", "1/s", low=0.0),
        Column("qty_rate", pl.Float64, "quantity traded a second", "base/s", low=0.0),
        Column("buy_share", pl.Float64, "share of the quantity whose taker bought", "1", True),
        Column("volatility", pl.Float64, "of the mid at each second's first frame", "ticks per root second", True),
        Column("spread", pl.Float64, "time-weighted mean of best ask - best bid", "ticks", True),
        Column("coverage", pl.Float64, "share of the training span covered by probes", "1", low=0.0),
        Column("condition", pl.String, "the worst of the days that the span touches"),
    ),
    key=("start_ns",),
    order=("start_ns",),
)

VALIDATION = Table(
    "validation",
    "what the fit in force predicted for one step, side and distance, and what came",
    (
        START,
        END,
        PROBE_SIDE,
        DISTANCE,
        COUNT_RULE,
        Column("age_steps", pl.Int64, "steps since the fit was made", low=0),
        Column("exposure_s", pl.Float64, "time at risk in the step", "s", low=0.0),
        Column("expected", pl.Float64, "hits predicted: exposure times the curve", low=0.0),
        Column("observed", pl.Int64, "hits that came", low=0),
        Column(
            "expected_ring",
            pl.Float64,
            "what is scored, predicted: rings under sweeps and all_hits, else hits",
            low=0.0,
        ),
        Column("observed_ring", pl.Int64, "what is scored, as it came", low=0),
    ),
    key=("start_ns", "side", "delta_ticks"),
    order=("start_ns",),
)

SCORES = Table(
    "scores",
    "how well one predictor foretold the steps, over all steps and distances of a side",
    (
        PROBE_SIDE,
        Column(
            "predictor", pl.String, "the fit, one constant rate a distance, or the last window's", values=PREDICTORS
        ),
        Column("steps", pl.Int64, "steps judged", low=0),
        Column("expected", pl.Float64, "hits predicted, over all distances (see validation.expected_ring)", low=0.0),
        Column("observed", pl.Int64, "hits that came", low=0),
        Column("ratio", pl.Float64, "observed / expected", "1", True),
        *_interval("ratio", "95% interval of it, clustered over steps", "1"),
        Column("log_score", pl.Float64, "sum of ln P(count | prediction), Poisson; higher is better", "1"),
        Column("log_score_per_step", pl.Float64, "the same, a step", "1", True),
        Column("gain_per_step", pl.Float64, "the fit's log score a step less this one's", "1", True),
        *_interval("gain_per_step", "95% interval of it over steps", "1"),
    ),
)

STABILITY = Table(
    "stability",
    "how one parameter of the schedule moves over time, from fits whose training spans do not overlap",
    (
        Column("parameter", pl.String, "log_A or k", values=("log_A", "k")),
        Column("unit", pl.String, "unit of the parameter"),
        Column("fits", pl.Int64, "fits on disjoint spans", low=0),
        Column("mean", pl.Float64, "their mean", "unit", True),
        Column(
            "scatter", pl.Float64, "standard deviation of the change from one to the next, over root 2", "unit", True
        ),
        Column("mean_se", pl.Float64, "root mean square of their stated standard errors", "unit", True),
        Column("stability", pl.Float64, "scatter / mean_se: 1 is a constant market, more is one that moves", "1", True),
        Column("drift_per_hour", pl.Float64, "slope of a weighted straight line over time", "unit/h", True),
        Column("drift_se", pl.Float64, "its standard error", "unit/h", True),
    ),
)

CALIBRATION_TABLES = (POINTS, FITS, CURVES, WINDOWS, WINDOW_METRICS, VALIDATION, SCORES, STABILITY)
