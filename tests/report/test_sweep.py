"""The long table of a sweep, laid out for people and for the heat map."""

from __future__ import annotations

from itertools import product

import numpy as np
import polars as pl
import pytest

from mmlab.core import schemas
from mmlab.core.errors import UsageError
from mmlab.report.canvas import png
from mmlab.report.sweep import heat_map
from mmlab.report.sweep_cells import cells, metrics, parameters, ranked, unit, wide

AXES = {"gamma": ["0.1", "0.2", "0.5"], "fill_model": ["poisson", "trade_cross"], "qty": ["1.0", "2.0"]}


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def table(axes: dict[str, list[str]], figures: list[float | None]) -> pl.DataFrame:
    """A sweep whose runs have these pnl_total, in the grid's order."""
    rows = []
    for i, (values, pnl) in enumerate(zip(product(*axes.values()), figures, strict=True), 1):
        rows += [(i, "parameter", name, number(v), v, "") for name, v in zip(axes, values, strict=True)]
        rows += [(i, "metric", "pnl_total", pnl, None, "quote"), (i, "metric", "fills", float(i), None, "1")]
    return schemas.SWEEP.check(pl.DataFrame(rows, schema=schemas.SWEEP.schema, orient="row"))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_every_run_has_one_cell_at_its_parameters(n):
    """Slow twin: look each cell's run up by its labels."""
    axes = dict(list(AXES.items())[:n])
    runs = list(product(*axes.values()))
    sweep = table(axes, [i * 1.5 - 4 for i in range(len(runs))])
    found = cells(sweep, "pnl_total")
    assert found.values.size == found.numbers.size == len(runs)
    assert found.values.shape == (len(found.panels), len(found.y_labels), len(found.x_labels))
    for (p, y, x), value in np.ndenumerate(found.values):
        wanted = {found.x: found.x_labels[x]}
        wanted |= {found.y: found.y_labels[y]} if found.y else {}
        wanted |= dict(part.split("=") for part in found.panels[p].split(", ") if part)
        at = runs.index(tuple(wanted[name] for name in axes))
        assert value == at * 1.5 - 4
        assert found.numbers[p, y, x] == at + 1


def test_a_run_without_the_metric_has_an_empty_cell():
    sweep = table({"gamma": AXES["gamma"]}, [1.0, None, 3.0])
    assert np.isnan(cells(sweep, "pnl_total").values).tolist() == [[[False, True, False]]]


def test_the_highest_comes_first_equal_ones_by_number_and_undefined_ones_last():
    sweep = table({"gamma": AXES["gamma"], "qty": AXES["qty"]}, [1.0, None, 3.0, 1.0, -2.0, 3.0])
    assert ranked(sweep, "pnl_total")["number"].to_list() == [3, 6, 1, 4, 5, 2]


def test_a_row_for_people_has_parameters_then_metrics():
    sweep = table({"gamma": AXES["gamma"], "qty": AXES["qty"]}, [0.5] * 6)
    rows = wide(sweep)
    assert rows.columns == ["number", "gamma", "qty", "pnl_total", "fills"]
    assert rows.row(3) == (4, "0.2", "2.0", 0.5, 4.0)
    assert (parameters(sweep), metrics(sweep)) == (["gamma", "qty"], ["pnl_total", "fills"])
    assert (unit(sweep, "pnl_total"), unit(sweep, "fills")) == ("quote", "")


def test_a_metric_that_is_named_as_a_parameter_keeps_a_column_of_its_own():
    sweep = table({"fills": ["7", "8"]}, [0.5, 0.25])
    assert wide(sweep).columns == ["number", "fills", "pnl_total", "fills (metric)"]
    assert ranked(sweep, "fills")["fills (metric)"].to_list() == [2.0, 1.0]


def test_an_unknown_metric_is_answered_with_the_metrics_that_there_are():
    with pytest.raises(UsageError, match="--sort-by is 'profit'") as error:
        ranked(table({"gamma": ["1"]}, [0.0]), "profit")
    assert "pnl_total, fills" in error.value.remedy


@pytest.mark.parametrize(
    "sweep",
    [
        table(AXES, [float(i) for i in range(12)]),
        table(AXES, [i - 5.5 for i in range(12)]),
        table({"gamma": AXES["gamma"], "fill_model": AXES["fill_model"]}, [1.0, None, 2.0, 2.0, 0.0, 1.0]),
        table({"gamma": AXES["gamma"]}, [-1.0, 2.0, None]),
        table({"gamma": ["0.1", "1.0", "10.0"]}, [-1.0, 2.0, 1.0]),
        table({"fill_model": AXES["fill_model"]}, [1.0, 1.0]),
        table({"gamma": ["0.1"]}, [None]),
        table({"gamma": [str(i) for i in range(40)], "qty": [str(i / 7) for i in range(40)]}, [1.0] * 1600),
        table({n: [str(i) for i in range(5)] for n in ("gamma", "qty", "seed")}, [float(i) for i in range(125)]),
        schemas.SWEEP.empty(),
    ],
    ids=["panels", "signs", "gap", "line", "log", "words", "nothing", "large", "seeds", "empty"],
)
def test_a_sweep_is_drawn_and_gives_the_same_bytes_each_time(sweep):
    first, second = (png(heat_map(sweep, "pnl_total")) for _ in range(2))
    assert first == second
    assert first.startswith(b"\x89PNG")
