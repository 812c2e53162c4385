"""The page is one file that needs nothing else, shows all it was given, and trusts no text."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from mmlab.core.schemas import METRICS
from mmlab.report.canvas import png
from mmlab.report.page import CAPTIONS, MOST_ROWS, render

IMAGE = png(Figure(figsize=(1, 1)))
MANIFEST: dict[str, Any] = {
    "kind": "backtest",
    "run_id": "20250101T000000Z",
    "spec": {"symbol": "BTCUSDT", "day": "20250101", "deltas": [1, 2, 3], "A": 1.5, "note": None},
    "inputs": [{"day": "20250101", "parts": {"trades/part-0.parquet": "ab12cd34"}}],
    "seed": 7,
    "warnings": ["20250101 is partial: <gap>"],
    "timings_s": {"match": 0.25},
}
NUMBERS = METRICS.conform(
    pl.DataFrame({"metric": ["net_pnl", "sharpe", "n_fills"], "value": [12.3456789, None, 1_234_567.0], "unit": "USDT"})
)


class Reader(HTMLParser):
    """Collects tags that stand open, addresses, and the text."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag and where it points."""
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Every tag closes the one opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        self.text += data


def page(**change: Any) -> str:
    """A page with everything on it, but for what is changed."""
    given = {
        "title": "A run",
        "manifest": MANIFEST,
        "metrics": NUMBERS,
        "figures": {"equity": IMAGE, "own_chart": IMAGE},
        "tables": {"fits": pl.DataFrame({"side": ["bid"], "A": [1.23456789], "train_end_ns": [1735689600000000000]})},
    }
    return render(**{**given, **change})


def test_every_tag_is_closed_in_turn() -> None:
    """The page is well-formed."""
    assert Reader(page()).open == []


def test_nothing_is_fetched_and_no_script_runs() -> None:
    """The only addresses are the images themselves; the style asks for nothing either."""
    html = page()
    reader = Reader(html)
    assert all(address.startswith("data:image/png;base64,") for address in reader.addresses)
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    assert "http" not in html
    assert "url(" not in html
    assert "@import" not in html


def test_images_are_the_bytes_that_were_given() -> None:
    """base64 and back."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page())
    assert [base64.b64decode(text) for text in found] == [IMAGE, IMAGE]


def test_header_names_kind_symbol_day_and_run() -> None:
    """Wherever the manifest keeps them."""
    text = Reader(page()).text
    assert re.search(r"kind backtest symbol BTCUSDT day 20250101 run 20250101T000000Z", text)


def test_metrics_are_tiles_with_units_and_a_dash_for_null() -> None:
    """Six significant digits; large numbers in full."""
    html = page()
    assert html.count('<div class="tile">') == 3
    text = Reader(html).text
    assert "net pnl12.3457USDT" in text
    assert "sharpe\u2013USDT" in text
    assert "1,234,567" in text


def test_known_figures_have_a_caption_and_unknown_ones_a_heading() -> None:
    """The caption says units and how to read the figure."""
    text = Reader(page()).text
    assert CAPTIONS["equity"] in text
    assert "Own chart" in text


def test_spec_inputs_and_checksums_are_folded() -> None:
    """Collapsed sections, none of them open."""
    html = page()
    text = Reader(html).text
    assert html.count("<details>") == 3
    for said in ("Specification", "deltas", "1, 2, 3", "trades/part-0.parquet", "ab12cd34", "timings_s", "seed"):
        assert said in text


def test_text_from_outside_is_escaped_everywhere() -> None:
    """Title, manifest keys and values, warnings, metric names, units, figure names, columns, cells."""
    evil = "<script>alert('x')</script>\"&"
    html = page(
        title=evil,
        manifest={"kind": evil, evil: evil, "spec": {evil: [evil]}, "inputs": [{evil: evil}], "warnings": [evil]},
        metrics=METRICS.conform(pl.DataFrame({"metric": [evil], "value": [1.0], "unit": [evil]})),
        figures={evil: IMAGE},
        tables={evil: pl.DataFrame({evil: [evil]})},
    )
    assert "<script" not in html
    assert Reader(html).open == []
    assert Reader(html).text.count(evil) >= 12


def test_tables_show_instants_as_utc_and_say_what_they_leave_out() -> None:
    """At most MOST_ROWS rows are drawn."""
    assert "2025-01-01 00:00:00" in page()
    html = page(tables={"fills": pl.DataFrame({"n": range(MOST_ROWS + 5)})})
    assert f"First {MOST_ROWS} of {MOST_ROWS + 5} rows" in html
    assert f">{MOST_ROWS - 1}<" in html
    assert f">{MOST_ROWS}<" not in html


def test_an_empty_page_is_still_a_page() -> None:
    """No metrics, figures, tables or manifest."""
    html = render("Nothing", {}, None, {}, {})
    assert Reader(html).open == []
    assert "Nothing" in Reader(html).text
    assert "No rows" in page(tables={"fits": pl.DataFrame({"A": []})})


def test_same_input_same_text() -> None:
    """No clock, no chance."""
    assert page() == page()
