"""The table of a search: every trial, what it was and what it scored."""

from __future__ import annotations

import polars as pl

from mmlab.core.grid_schemas import GRID_TABLES
from mmlab.core.table import Column, Table

TRIAL_ROLES = ("objective", "parameter", "train", "test", "error")

GRID_TRIALS = Table(
    "grid_trials",
    "one parameter or figure of one trial of a search",
    (
        Column("number", pl.Int64, "the trial, from 0", low=0),
        Column("drawn", pl.String, "how its parameters were drawn", values=("uniform", "tpe")),
        Column(
            "role",
            pl.String,
            "objective: what is searched for; train, test: scores, the latter never searched by; error: why it failed",
            values=TRIAL_ROLES,
        ),
        Column("coin", pl.String, "symbol; null for parameters and the objective", nullable=True),
        Column("window", pl.Int64, "walk-forward window, from 1", nullable=True, low=1),
        Column("name", pl.String, "parameter or figure"),
        Column("value", pl.Float64, "value; null where it is no number", nullable=True),
        Column("text", pl.String, "value that is no number", nullable=True),
    ),
    order=("number",),
)

GRID = (*GRID_TABLES, GRID_TRIALS)  # all tables of grid runs
