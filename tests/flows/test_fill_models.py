"""One strategy under each fill model: every row is the same backtest by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from mmlab.core import schemas
from mmlab.core.errors import UsageError
from mmlab.core.schemas import COMPONENTS
from mmlab.core.spans import Days
from mmlab.flows.backtest import IntensitySource, backtest
from mmlab.flows.fill_models import compare_fills, variants
from mmlab.flows.report import make_report
from mmlab.flows.run import Job
from mmlab.flows.synth import synth
from mmlab.report.backtest_fills import side_by_side
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from mmlab.store.runs import read_table
from mmlab.tape.synth_spec import SynthSpec

BASE = BacktestSpec(QuoteSpec("fixed_spread", 2.0), FillSpec(), qty=0.01, initial_inventory=0.2, account="margin")
SOURCE = IntensitySource(1.5, 0.25)
TAPE = [("trade_cross", "touch"), ("trade_cross", "queue"), ("trade_cross", "through"), ("price_cross", "touch")]


def job(root: Path, run_id: str) -> Job:
    return Job("SYNTH", Days.parse("20250101"), data_root=root / "data", out_root=root / "out", run_id=run_id)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("fills")
    synth(SynthSpec(hours=0.05, seed=4), path / "data", replace=False)
    return path


def test_every_row_has_the_figures_of_the_same_backtest_by_itself(root):
    """Metrics and parts of the profit, to the last bit; the run itself is the same with and without."""
    spec = replace(BASE, latency_jitter="lognormal:0.4", fill=FillSpec(seed=9))
    made = compare_fills(job(root, "each"), spec, SOURCE)
    kept = read_table(made.path, schemas.FILL_MODELS)
    assert kept is not None
    assert kept.equals(made.fill_models)
    seen = set()
    for number, (model, reach) in enumerate([*TAPE, ("poisson", "touch"), ("hybrid", "touch")], 1):
        alone = backtest(job(root, f"{model}-{reach}"), replace(spec, fill=FillSpec(model, reach, seed=9)), SOURCE)
        rows = made.fill_models.filter(number=number)
        assert rows.filter(role="parameter").select("name", "text").rows() == [
            ("fill_model", model), ("fill_reach", reach),
        ]  # fmt: skip
        assert rows.filter(role="metric").select(metric="name", value="value", unit="unit").equals(alone.metrics)
        parts = alone.attribution.filter(horizon_s=5, side="both").select("component", "value").rows()
        assert rows.filter(role="part").select("name", "value").rows() == parts
        assert sum(value for _, value in parts) == pytest.approx(alone.metrics["value"][0], abs=1e-9)
        seen.add(alone.metrics["value"][0])
        if number == 1:
            assert made.metrics.equals(alone.metrics)
            for table in (schemas.ORDERS, schemas.FILLS, schemas.STATE, schemas.MARKOUTS):
                assert (made.path / f"{table.name}.parquet").read_bytes() == (
                    alone.path / f"{table.name}.parquet"
                ).read_bytes()
    assert made.fill_models["number"].max() == 6
    assert len(seen) == 6


def test_without_an_intensity_there_are_the_models_of_the_tape(root):
    made = compare_fills(job(root, "tape"), BASE, IntensitySource(), csv=True)
    assert (made.path / "fill_models_SYNTH.csv").read_text().count("\n") == made.fill_models.height + 1
    assert side_by_side(made.fill_models)["model"].to_list() == [" ".join(pair) for pair in TAPE]
    assert side_by_side(made.fill_models).columns[1:] == [
        "pnl_total", *COMPONENTS, "fills", "fill_ratio", "max_drawdown", "sharpe",
    ]  # fmt: skip


def test_the_runs_own_fill_model_is_always_among_them():
    """Beside the usual ones where it is none of them; what is set besides stays for all."""
    own = FillSpec("hybrid", "queue", seed=3, queue_cancels="proportional", book_levels=2)
    found = variants(own, has_intensity=True)
    assert [(fill.model, fill.reach) for fill in found] == [
        *TAPE, ("poisson", "touch"), ("hybrid", "touch"), ("hybrid", "queue"),
    ]  # fmt: skip
    assert {(fill.seed, fill.queue_cancels, fill.book_levels) for fill in found} == {(3, "proportional", 2)}
    assert len(variants(FillSpec("poisson", "through"), has_intensity=True)) == 6, "poisson fills have no reach"
    assert len(variants(FillSpec("price_cross", "through"), has_intensity=False)) == 5


def test_a_strategy_that_keeps_things_in_its_file_starts_anew_under_each_fill_model(root, tmp_path):
    """It cannot be compiled, and quotes wider the more often it was asked."""
    file = tmp_path / "wider.py"
    file.write_text(
        "ASKED = []\n\n\ndef quote(view):\n    ASKED.append(view)\n"
        "    half = view.tick_size * (1 + len(ASKED) // 100)\n    return view.mid - half, view.mid + half\n"
    )
    spec = replace(BASE, quote=QuoteSpec("strategy", strategy=f"{file}:quote"))
    made = compare_fills(job(root, "memory"), spec, IntensitySource())
    assert len([text for text in made.warnings if "runs uncompiled" in text]) == 1
    for number, (model, reach) in enumerate(TAPE, 1):
        alone = backtest(job(root, f"memory-{number}"), replace(spec, fill=FillSpec(model, reach)), IntensitySource())
        rows = made.fill_models.filter(number=number, role="metric")
        assert rows.select(metric="name", value="value", unit="unit").equals(alone.metrics)


def test_a_fill_model_that_needs_an_intensity_is_refused_as_in_a_backtest(root):
    with pytest.raises(UsageError, match="poisson fills need"):
        compare_fills(job(root, "refused"), replace(BASE, fill=FillSpec("poisson")), IntensitySource())
    assert not list((root / "out").rglob("*run=refused*"))


def test_models_under_which_nothing_was_filled_are_named_once(root, tmp_path):
    """And a schedule that covers a part is warned of once, though three runs look at it."""
    start = 1_735_689_600_000
    file = tmp_path / "poisson_schedule.json"
    file.write_text(json.dumps([{"start_ms": start, "end_ms": start + 60_000, "A": 1.5, "k": 0.25}]))
    far = replace(BASE, quote=QuoteSpec("fixed_spread", 3_000.0))
    made = compare_fills(job(root, "idle"), far, IntensitySource(file=file))
    assert len([text for text in made.warnings if "the intensity covers" in text]) == 1
    [said] = [text for text in made.warnings if "under" in text]
    assert said == "no order was filled under trade_cross touch, trade_cross queue, trade_cross through, " \
        "price_cross touch, poisson, hybrid touch"  # fmt: skip
    assert side_by_side(made.fill_models)["sharpe"].null_count() == 0


def test_the_report_has_them_side_by_side_in_words_and_numbers(root):
    pytest.importorskip("matplotlib")
    made = compare_fills(job(root, "page"), BASE, SOURCE)
    page = make_report(made.path).read_text()
    for said in ("Fill models side by side", "What each fill model assumes", "a lower bound", "One strategy under"):
        assert said in page
    assert (made.path / "fill_models.png").exists()
    assert "http" not in page
    assert len(page) < 2_000_000
    rows = pl.read_parquet(made.path / "fill_models.parquet").height
    assert rows == made.fill_models.height


def test_the_command_shows_a_column_for_each_model_and_what_it_assumes(root):
    """As a user types it; with a sweep it is refused."""
    words = ["backtest", "--symbol", "SYNTH", "--day", "20250101", "--quote-model", "fixed_spread", "--compare-fills"]
    program = [sys.executable, "-c", "from mmlab.cli.app import main; main()", *words, "--account", "margin"]
    shell = {"cwd": root, "env": {**os.environ, "COLUMNS": "200"}, "capture_output": True, "text": True}
    ran = subprocess.run([*program, "--run-id", "typed", "--json"], check=False, **shell)
    assert ran.returncode == 0, ran.stderr
    assert "the same strategy under each fill model" in ran.stdout
    assert "a lower bound" in ran.stdout
    said = json.loads(ran.stdout.splitlines()[-1])
    assert list(said["fill_models"]) == sorted(" ".join(pair) for pair in TAPE)
    assert said["fill_models"]["trade_cross touch"]["pnl_total"] == said["pnl_total"]
    refused = subprocess.run([*program, "--sweep", "gamma=1,2"], check=False, **shell)
    assert refused.returncode == 2
    assert "--compare-fills and --sweep are both given" in refused.stderr
