"""The slow obvious twin of the orders' exposure: dictionaries and fractions, one order at a time."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import polars as pl

Holes = list[tuple[int, int]]


def exposures(
    orders: pl.DataFrame, fills: pl.DataFrame, state: pl.DataFrame, tick: str, lot: str, holes: Holes
) -> tuple[list[dict[str, Any]], int]:
    """The rows of orders that were at risk or hit, and how many had no mid."""
    steps, parts, moments = (frame.to_dicts() for frame in (orders, fills, state))
    placed = [step for step in steps if step["action"] == "PLACE"]
    refused = [step["order_id"] for step in steps if step["action"] == "REJECT"]
    rows, unknown = [], 0
    for order in sorted(placed, key=lambda step: step["order_id"]):
        own = [part for part in parts if part["order_id"] == order["order_id"]]
        if order["order_id"] in refused or (own and own[0]["liquidity"] == "taker"):
            continue
        ends = [(moments[-1]["recv_ns"], "end_of_run"), (order["expire_recv_ns"], "expire")]
        asked = [s for s in steps if s["order_id"] == order["order_id"] and s["action"] == "CANCEL_REQ"]
        ends += [(step["cancel_effective_ns"], "cancel") for step in asked]
        expired = [s for s in steps if s["order_id"] == order["order_id"] and s["action"] == "EXPIRE"]
        ends += [(step["recv_ns"], "expire") for step in expired if ("expire", step["recv_ns"]) not in ends]
        ends += [(part["recv_ns"], "fill") for part in own[:1]]
        end = min(ns for ns, _ in ends if ns is not None)
        why = [reason for ns, reason in ends if ns == end][-1]
        start = order["active_recv_ns"]
        if end < start or (end == start and why != "fill"):
            continue
        mids = [moment["mid"] for moment in moments if moment["recv_ns"] <= start]
        if not mids:
            unknown += 1
            continue
        distance = order["side"] * (in_steps(mids[-1], tick) - in_steps(order["price"], tick))
        assert (2 * distance).denominator == 1
        hit = why == "fill" and not any(a < end < b for a, b in holes)
        lots = sum(in_steps(part["qty"], lot) for part in own if part["recv_ns"] == end) if hit else Fraction(0)
        known = at_risk(start, end, holes)
        if not hit and length(known) == 0:
            continue
        rows.append(
            {
                "order_id": order["order_id"], "side": order["side"], "price": order["price"], "active_ns": start,
                "end_ns": end, "hit": hit, "hit_ns": end if hit else None, "lots": lots, "distance2": 2 * distance,
                "exposure_ns": length(known), "end_reason": why, "known": known,
            }
        )  # fmt: skip
    return rows, unknown


def in_steps(decimal: float, step: str) -> Fraction:
    """The decimal that the double prints as, in steps."""
    return Fraction(repr(decimal)) / Fraction(step)


def at_risk(start: int, end: int, holes: Holes) -> Holes:
    """[start, end) without the holes."""
    left = [(start, end)] if start < end else []
    for a, b in holes:
        left = [part for f, t in left for part in ((f, min(t, a)), (max(f, b), t)) if part[0] < part[1]]
    return left


def length(spans: Holes) -> int:
    """Their time."""
    return sum(b - a for a, b in spans)


def cell(rows: list[dict[str, Any]], side: int, distance: Fraction, span: tuple[int, int]) -> tuple[int, int, int, int]:
    """Exposure, hits, lots and orders of one side and distance within one bucket [from, to)."""
    inside = [row for row in rows if row["side"] == side and row["distance2"] == 2 * distance]
    met = [row for row in inside if row["hit"] and span[0] <= row["hit_ns"] < span[1]]
    return (
        sum(max(min(b, span[1]) - max(a, span[0]), 0) for row in inside for a, b in row["known"]),
        len(met),
        int(sum(row["lots"] for row in met)),
        len([row for row in inside if span[0] <= row["active_ns"] < span[1]]),
    )
