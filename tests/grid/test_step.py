"""The step as a runner calls it: bar by bar from outside, the state a record that can be written down in between."""

from __future__ import annotations

import numpy as np
import pytest

from mmlab.grid import layout
from mmlab.grid.engine import simulate
from mmlab.grid.matching import trade_candle
from mmlab.grid.step import decide_bar
from reference.grid_cases import arrays, draw


@pytest.mark.parametrize("seed", [5, 10, 14, 21])
def test_bar_by_bar_with_the_state_written_and_read_each_time_it_is_the_backtest(seed):
    case = draw(seed)
    X, C = arrays(case)
    P = layout.pack(case.params, case.venue, False)
    kept = layout.world(P, case.params.initial_capital).tobytes()
    peer, warm_up = case.venue.fills == "peer", layout.warm_up(case.params)
    lines = simulate(X, C, case.params, case.venue, record=False).equity
    ends = [*X[1:, layout.FIRST_CANDLE].astype(int), len(C)]
    for i, end in enumerate(ends[:-1]):  # the backtest's last line is after it closed everything
        w = np.rec.array(np.frombuffer(bytearray(kept), layout.WORLD))[0]
        if peer and i >= warm_up:
            decide_bar(w, X[i], i)
        first = int(X[i, layout.FIRST_CANDLE])
        for j in range(first, end):
            trade_candle(w, C[j], i, j, j == first)
        assert w.S[layout.WALLET] == lines[i, 0]
        assert w.lots[0, : int(w.S[layout.LOTS_AT]), layout.LOT_QTY].sum() == pytest.approx(lines[i, 2])
        if not peer and i >= warm_up:
            decide_bar(w, X[i], i)
        assert w.S[layout.ENTRIES_AT] + w.S[layout.ENTRIES_AT + 1] == lines[i, 8]
        assert w.S[layout.EXITS_AT] + w.S[layout.EXITS_AT + 1] == lines[i, 9]
        kept = w.tobytes()
    assert len(set(lines[:, 0])) > 12, "nothing was traded"
