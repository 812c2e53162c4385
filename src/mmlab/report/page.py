"""Tables and figures -> one HTML page that needs nothing else: no network, no script. Draws, never computes."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any

import polars as pl

from mmlab.core.spans import NS_PER_S

MOST_ROWS = 200  # of a table; the rest is in the run's Parquet files
HEAD = ("kind", "method", "symbol", "day", "run_id")
CAPTIONS = {
    "equity": "Change of cash plus inventory at the mid since the start, in quote currency; "
    "below it the drawdown, how far the value lies under its highest so far.",
    "inventory": "Position in base currency after every decision and fill; above zero is long, below is short.",
    "fills_on_price": "The whole run, thinned to what can be seen: mid, own best quotes that were not being cancelled, "
    "and fills at their prices. Triangles that point up are buys, down sells; blue ones were followed by a move of the "
    "mid in their favour, red ones by a move against them, grey ones by the end of the run.",
    "quotes_close_up": "The same for a stretch with many fills: own quotes as they stood, a gap where there was "
    "none. A quote is drawn from the decision on, and can be filled from one entry latency later.",
    "where_it_came_from": "Spread earned: the mid less the price of each fill. Adverse selection: what the mid did in "
    "the 5 s after it. Inventory: what it did after that, to the last mid. With the fees these are the whole profit.",
    "attribution_by_horizon": "The same with adverse selection ending sooner or later after the fill: what moves "
    "between it and inventory. Quote currency; fills_cut were followed to the end of the run, which came sooner.",
    "markouts": "Where the mid went after the fills, above zero in their favour, in 1/10,000 of the mid at the fill: "
    "compare it with the fees. Above, how far they scatter; below, on a scale of its own, the means: while the ring "
    "lies above zero, the spread earned was more than the mid took back.",
    "markouts_by_horizon": "In 1/10,000 of the mid at the fill; each fill counts by its notional. low and high: the "
    "95% interval of the mean, clustered over blocks of time, as neighbouring fills share their moves. kept: mean of "
    "spread earned and markout. cut: fills so near the end of the run that the markout is not known.",
    "latency": "The part of the orders that waited no longer than this. Cancels are all that were sent, also those "
    "that a fill came before; an order that was never filled has no wait for a fill.",
    "waiting_times": "Times from the orders' own rows, in ms.",
    "quoted_time": "In each stretch of time the part with an own bid and ask at work (sent, and not being cancelled), "
    "with one of them only, or with none.",
    "fill_models": "One strategy, one tape, only the rule that fills its orders differs: dot: profit; bars: its parts. "
    "Between them lies what this backtest cannot know: one that pays under the kindest rule only is not shown to pay.",
    "fill_models_side_by_side": "Money in quote currency; the parts are those of fills followed for 5 s; fill_ratio: "
    "part of the orders sent that were filled at least in part.",
    "intensity": "Hits per second and side against the distance from the mid in ticks, on a log scale: "
    "the model is a straight line there, and bars that miss it say where it does not hold.",
    "families": "The measured rates of both sides and every curve fitted to them, joined from distance to distance; "
    "the lowest AIC fits best, differences below 2 say little, and bursts make them look larger than they are.",
    "parameters": "A in hits per second and side and k per tick, step by step; a step uses only data from before it, "
    "hatched steps carry an older fit forward.",
    "coverage": "Share of each step's training span in which probes stood, and the hits that its fit rests on; "
    "hatched are spans that touch a day whose recording is not complete.",
    "curves_by_hour": "Hits per second and side against distance, a panel for each hour of the day in UTC, all on the "
    "same scales; the line is the last curve fitted in that hour, on the time before it.",
    "dispersion": "Variance of the hits over blocks of time divided by that of a Poisson process: 1 is hits that come "
    "independently, more is bursts, which make plain Poisson intervals too narrow.",
    "fill_times": "Mean wait until the first hit of a quote held at a distance, 1 / (A exp(-k delta)) with the "
    "parameters in force, in seconds on a log scale.",
    "correlation": "Rank correlations of the fitted ln A and k with what the tape did in the same training spans, "
    "from -1 to 1; neighbouring windows overlap, so they are fewer than they look.",
    "reliability": "Each dot is a tenth of a side's predictions (a step and distance each), made before the step: "
    "on the line at 1 as many hits came as were predicted. The bars allow for Poisson chance alone, not for bursts.",
    "reliability_by_distance": "Hits that came divided by hits predicted at each distance; above 1 quotes there fill "
    "more often than the curve says. Distances share prints, so neighbours move together.",
    "heat_map": "One metric of every run of the sweep at its two first parameters, a panel for each combination of the "
    "others; the framed cell is the highest. One tape, so it is picked in hindsight: lone peaks are chance.",
    "log_scores": "How much likelier, in nats a step, the fit made what came than a simple predictor did; "
    "where the bar reaches over 0, the fit is not shown to be better or worse.",
}
STYLE = """
:root { --ink: #1f2933; --muted: #616e7c; --line: #e4e7eb; --wash: #f5f7fa; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 40px 24px 80px; color: var(--ink); background: #fff;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 8px; }
h2 { font-size: 19px; margin: 44px 0 12px; }
.run { color: var(--muted); margin: 0 0 24px; }
.run span { margin-right: 18px; white-space: nowrap; }
.run b { color: var(--ink); font-weight: 600; }
.warning { border-left: 3px solid #d55e00; background: #fdf3ec; padding: 8px 14px; margin: 8px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(165px, 1fr)); gap: 10px; }
.tile { border: 1px solid var(--line); border-radius: 6px; padding: 10px 14px; }
.tile .name { color: var(--muted); font-size: 13px; overflow-wrap: anywhere; }
.tile .value { font-size: 21px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile .unit { color: var(--muted); font-size: 12px; }
figure { margin: 0 0 30px; }
figure img { width: 100%; height: auto; display: block; }
figcaption { color: var(--muted); font-size: 14px; margin-top: 4px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--muted); font-weight: 600; white-space: nowrap; }
td.number, th.number { text-align: right; }
td.text { overflow-wrap: anywhere; }
td table td, td table th { border-bottom: 0; padding: 1px 14px 1px 0; }
details { border: 1px solid var(--line); border-radius: 6px; padding: 8px 16px; margin-top: 10px; }
summary { cursor: pointer; font-weight: 600; }
.note { color: var(--muted); font-size: 13px; }
@media print { details { break-inside: avoid; } figure { break-inside: avoid; } }
"""


def render(
    title: str,
    manifest: Mapping[str, Any],
    metrics: pl.DataFrame | None,
    figures: Mapping[str, bytes],
    tables: Mapping[str, pl.DataFrame],
    alts: Mapping[str, str] | None = None,
    captions: Mapping[str, str] | None = None,
) -> str:
    """One page. metrics: METRICS rows or None; figures: PNG bytes by name; tables: frames by name, in order.

    alts: in words what a figure shows, by name; captions: instead of those in CAPTIONS, by name.
    Figures and tables that are named in CAPTIONS get their captions. Header, warnings and the collapsed
    sections come from the manifest, whose unknown keys are shown as they stand.
    """
    said = {**CAPTIONS, **(captions or {})}
    parts = [
        f"<h1>{escape(title)}</h1>",
        _header(manifest),
        *(f'<p class="warning">{escape(str(text))}</p>' for text in manifest.get("warnings", ())),
        _tiles(metrics),
        *(_figure(name, image, (alts or {}).get(name, ""), said.get(name, "")) for name, image in figures.items()),
        *(_section(name, frame, said.get(name, "")) for name, frame in tables.items()),
        _provenance(manifest),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _header(manifest: Mapping[str, Any]) -> str:
    """Kind, symbol, day and run, from the manifest or the spec in it."""
    known = {**manifest.get("spec", {}), **manifest}
    items = (f"<span>{key.replace('_id', '')} <b>{escape(str(known[key]))}</b></span>" for key in HEAD if key in known)
    return f'<p class="run">{" ".join(items)}</p>'


def _tiles(metrics: pl.DataFrame | None) -> str:
    if metrics is None or metrics.is_empty():
        return ""
    tiles = (
        f'<div class="tile"><div class="name">{escape(name.replace("_", " "))}</div>'
        f'<div class="value">{_number(value)}</div><div class="unit">{escape(unit).removeprefix("1")}</div></div>'
        for name, value, unit in metrics.select("metric", "value", "unit").iter_rows()
    )
    return f'<h2>Metrics</h2>\n<div class="tiles">{"".join(tiles)}</div>'


def _figure(name: str, image: bytes, alt: str, caption: str) -> str:
    label = escape(_heading(name))
    data = base64.b64encode(image).decode("ascii")
    return (
        f'<h2>{label}</h2>\n<figure><img alt="{escape(alt) or label}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _section(name: str, frame: pl.DataFrame, caption: str) -> str:
    if frame.is_empty():
        return f'<h2>{escape(_heading(name))}</h2>\n<p class="note">No rows.</p>'
    number = {column: dtype.is_numeric() for column, dtype in frame.schema.items()}
    head = "".join(f"<th{_right(number[c])}>{escape(c)}</th>" for c in frame.columns)
    rows = "\n".join(
        "<tr>" + "".join(f"<td{_right(number[c])}>{_cell(v, c)}</td>" for c, v in row.items()) + "</tr>"
        for row in frame.head(MOST_ROWS).iter_rows(named=True)
    )
    more = f'<p class="note">First {MOST_ROWS:,} of {frame.height:,} rows.</p>' if frame.height > MOST_ROWS else ""
    table = f'<div class="scroll"><table><tr>{head}</tr>\n{rows}</table></div>'
    said = f'<p class="note">{escape(caption)}</p>' if caption else ""
    return f"<h2>{escape(_heading(name))}</h2>\n{table}{said}{more}"


def _provenance(manifest: Mapping[str, Any]) -> str:
    """What went in, collapsed: the spec, the inputs with their checksums, and the rest of the manifest."""
    named = {"spec": "Specification", "inputs": "Inputs and checksums"}
    rest = {key: value for key, value in manifest.items() if key not in (*named, "warnings")}
    blocks = [(text, manifest[key]) for key, text in named.items() if manifest.get(key)]
    blocks += [("Versions, timings and the rest", rest)] if rest else []
    folded = (f"<details><summary>{text}</summary>{_tree(value)}</details>" for text, value in blocks)
    return "<h2>How it was made</h2>\n" + "\n".join(folded) if blocks else ""


def _tree(value: Any) -> str:
    """Mappings as two columns, lists of scalars in one line, lists of mappings one after the other."""
    if isinstance(value, Mapping):
        rows = (f'<tr><th>{escape(str(k))}</th><td class="text">{_tree(v)}</td></tr>' for k, v in value.items())
        return f"<table>{''.join(rows)}</table>"
    if isinstance(value, list | tuple):
        if any(isinstance(item, Mapping | list | tuple) for item in value):
            return "".join(_tree(item) for item in value)
        return ", ".join(_cell(item) for item in value)
    return _cell(value)


def _cell(value: Any, column: str = "") -> str:
    """A float in six digits, an instant (`_ns`, after 1973) as UTC text, null as a dash, the rest as it stands."""
    if isinstance(value, int) and column.endswith("_ns") and value > 10**17:
        return f"{datetime.fromtimestamp(value // NS_PER_S, UTC):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, float):
        return _number(value)
    return "&ndash;" if value is None else escape(str(value))


def _number(value: float | None) -> str:
    """Six significant digits, thousands parted; a dash where there is no value."""
    if value is None or math.isnan(value):
        return "&ndash;"
    return f"{value:,.0f}" if 1e6 <= abs(value) < 1e15 else f"{value:,.6g}"


def _right(number: bool) -> str:
    return ' class="number"' if number else ""


def _heading(name: str) -> str:
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]
