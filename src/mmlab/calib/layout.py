"""Where everything lies in the arrays that the passes share with their callers: what @entry functions take in."""

from __future__ import annotations

LAST_SEQ = 2**63 - 1  # behind every row of its time
OPEN, START_NS, START_SEQ, ANCHOR, LAST_NS, LAST_FRAME_SEQ, WALK_WIDTH = range(7)  # where the walk stands
# intervals: a row each; `mid2` is the anchor mid in half ticks
LAID_START_NS, LAID_START_SEQ, LAID_END_NS, LAID_END_SEQ, LAID_MID2, LAID_WIDTH = range(6)
# the book's sums in a bucket, and what they go on from
SPREAD_TICK_US, SPREAD_US, MOVE2, MOVE_US, MARKET_WIDTH = range(5)
PREV_NS, PREV_SPREAD, SAMPLE_AT, SAMPLE_MID2, WATCH_WIDTH = range(5)
FIRST_HIT, SWEEPS, ALL_HITS = range(3)  # as in schemas.COUNT_RULES
PRINTS, LOTS, BOUGHT, FLOW_WIDTH = range(4)  # the tape itself in a bucket
# between two goes at prints: the interval, the taker order, the last print; of each side the distances reached in the
# interval, and the taker order and bucket of the last print that reached further
INTERVAL, ORDER, LAST_TRADE_NS, LAST_ID, LAST_TAKER, BEST, _, RECORD, _, BUCKET, _, JOIN_WIDTH = range(12)
