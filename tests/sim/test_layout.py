"""The engine's arrays have one meaning a place."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from mmlab.sim import layout, spec


def test_no_two_places_have_one_name():
    """A second assignment would silently move every reader of the first."""
    tree = ast.parse(Path(layout.__file__).read_text())
    names = [
        node.id
        for statement in tree.body
        if isinstance(statement, ast.Assign | ast.AnnAssign)
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
    assert len(names) > 150
    assert [name for name, n in Counter(names).items() if n > 1] == []


def test_codes_and_names_are_in_the_same_order():
    assert set(layout.MODELS) == set(spec.QUOTE_MODELS)
    assert layout.MODELS[layout.GLFT] == "glft"
    assert layout.MODELS[layout.STRATEGY] == "strategy"
    assert layout.ACTIONS[layout.CANCEL_REJECT] == "CANCEL_REJECT"
    assert layout.REFUSALS[layout.IS_GONE] == "order_is_gone"
    assert layout.CANCELS[layout.IOC_REST] == "IOC"
    assert layout.FILL_REASONS[layout.BY_BOOK] == "price_cross"
    assert len(layout.LIQUIDITY) == len(layout.FILL_REASONS)
    assert len(layout.STATUS_OF) == len(layout.ACTIONS)
