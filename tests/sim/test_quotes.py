"""Quote formulas against decimals of fifty digits, published numbers, and the exact solution that one approximates."""

from __future__ import annotations

import sys
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.sim.quotes import avellaneda_stoikov, glft, microprice

sys.path.append(str(Path(__file__).resolve().parents[2]))
from benchmarks.paper.glft import REFERENCES, TUTORIAL, exact

positions = st.integers(-50, 50).map(float)
gammas, variances, ks, rates = st.floats(1e-6, 50), st.floats(1e-12, 1e6), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)
taus = st.floats(0, 1e5)


def decimals(*values: float) -> tuple[Decimal, ...]:
    """Each double's exact value."""
    return tuple(map(Decimal, values))


@pytest.fixture(autouse=True)
def fifty_digits():
    """For the twins; exponents far below those of doubles."""
    with localcontext() as context:
        context.prec = 50
        yield


def slow_as(q: float, gamma: float, variance: float, tau: float, k: float) -> tuple[float, float]:
    """Reservation price and spread as the paper writes them, around a mid of 0."""
    q, gamma, variance, tau, k = decimals(q, gamma, variance, tau, k)
    reservation = -q * gamma * variance * tau
    spread = gamma * variance * tau + 2 / gamma * (1 + gamma / k).ln()
    return float(-reservation), float(spread / 2)


def slow_glft(q: int, gamma: float, variance: float, A: float, k: float) -> tuple[float, float]:
    """Distances of bid and ask from the mid, as GLFT write them: (2q + 1) / 2 and (2q - 1) / 2."""
    gamma, variance, A, k = decimals(gamma, variance, A, k)
    root = (variance * gamma / (2 * k * A) * (1 + gamma / k) ** (1 + k / gamma)).sqrt()
    first = (1 + gamma / k).ln() / gamma
    return float(first + Decimal(2 * q + 1) / 2 * root), float(first - Decimal(2 * q - 1) / 2 * root)


@given(positions, gammas, variances, taus, ks)
def test_avellaneda_stoikov_is_eqs_29_and_30(q, gamma, variance, tau, k):
    """To the last digits of a double."""
    assert avellaneda_stoikov(q, gamma, variance, tau, k) == pytest.approx(slow_as(q, gamma, variance, tau, k), 1e-14)


@given(st.integers(-50, 50), gammas, variances, rates, ks)
def test_glft_is_its_closed_form(q, gamma, variance, A, k):
    """Centre and half spread are what the paper's two distances make; the power costs some digits where k >> gamma."""
    shift, half = glft(float(q), gamma, variance, A, k)
    bid, ask = slow_glft(q, gamma, variance, A, k)
    assert [half + shift, half - shift] == pytest.approx([bid, ask], rel=1e-12, abs=1e-12 * (abs(bid) + abs(ask)))


@pytest.mark.parametrize("r", REFERENCES, ids=lambda r: f"sigma {r.sigma:g} gamma {r.gamma:g}")
def test_glft_gives_the_reference_numbers(r):
    """To 1e-6 where six decimals are given, and to half of the last of five."""
    shift, half = glft(5.0, r.gamma, r.sigma**2, r.A, r.k)
    assert (half, shift / 5) == pytest.approx((r.half, r.skew), abs=1e-6)
    assert (half + shift, half - shift) == pytest.approx(r.closed_5, abs=5.1e-6)


@pytest.mark.parametrize("r", REFERENCES, ids=lambda r: f"sigma {r.sigma:g} gamma {r.gamma:g}")
def test_the_eigenvector_gives_the_exact_reference_numbers(r):
    """To half of the last digit that is given; bid and ask are alike without a position."""
    bid, ask = exact(0, r.sigma, r.A, r.k, r.gamma)
    assert bid == pytest.approx(r.exact_0, abs=5.1e-6)
    assert ask == pytest.approx(bid, abs=1e-12)
    assert exact(5, r.sigma, r.A, r.k, r.gamma) == pytest.approx(r.exact_5, abs=5.1e-6)


@pytest.mark.parametrize("r", REFERENCES, ids=lambda r: f"sigma {r.sigma:g} gamma {r.gamma:g}")
def test_glft_is_near_the_exact_quotes(r):
    """Within 0.6% of the distance at a position of 5, and the exact quotes of -q are those of q in a mirror."""
    for q in (0, 2, 5):
        shift, half = glft(float(q), r.gamma, r.sigma**2, r.A, r.k)
        found = exact(q, r.sigma, r.A, r.k, r.gamma)
        assert (half + shift, half - shift) == pytest.approx(found, rel=6e-3)
        assert exact(-q, r.sigma, r.A, r.k, r.gamma) == pytest.approx(found[::-1], abs=1e-9)


def test_the_eigenvector_solves_the_equation_of_the_paper():
    """Quotes from the ordinary differential equations v' = alpha q^2 v - eta (v_(q-1) + v_(q+1)), a long time before T,
    stepped backwards in time by a Runge-Kutta that knows nothing of eigenvectors."""
    sigma, A, k, gamma, most = 2.0, 140.0, 1.5, 0.1, 12
    alpha, eta = k / 2 * gamma * sigma**2, A * (1 + gamma / k) ** -(1 + k / gamma)
    q = np.arange(-most, most + 1)
    v, h = np.ones(q.size), 2e-3

    def slope(v):
        beside = np.convolve(v, [1, 0, 1], "same")
        return eta * beside - alpha * q**2 * v

    for _ in range(4000):
        a = slope(v)
        b = slope(v + h / 2 * a)
        c = slope(v + h / 2 * b)
        v = v + h / 6 * (a + 2 * b + 2 * c + slope(v + h * c))
        v /= v.max()
    c1 = np.log(1 + gamma / k) / gamma
    for at in range(1, q.size - 1):
        slow = [np.log(v[at] / v[at + side]) / k + c1 for side in (1, -1)]
        assert exact(int(q[at]), sigma, A, k, gamma, most) == pytest.approx(slow, abs=1e-7)


def test_glft_gives_hftbacktests_worked_example():
    """Its convention: half = c1 + sigma c2 / 2 and skew = sigma c2, with delta = 1 and xi = gamma."""
    sigma, A, k, gamma, half, skew = TUTORIAL
    assert glft(1.0, gamma, sigma**2, A, k) == pytest.approx((skew, half), abs=1e-6)


@given(variances, taus, ks, rates)
def test_without_risk_aversion_both_quote_one_over_k(variance, tau, k, A):
    """Gamma -> 0: no lean, and the distance that earns most, argmax of delta exp(-k delta)."""
    gamma = 1e-9 * k
    shift, half = avellaneda_stoikov(1.0, gamma, variance, tau, k)
    assert half - gamma * variance * tau / 2 == pytest.approx(1 / k, rel=1e-8, abs=1e-15 * half)
    assert shift == gamma * variance * tau
    skew, far = glft(1.0, gamma, variance, A, k)
    assert skew == pytest.approx(np.sqrt(variance * gamma * np.e / (2 * k * A)), rel=1e-8)
    assert far - skew / 2 == pytest.approx(1 / k, rel=1e-8, abs=1e-15 * far)


@given(positions, gammas, variances, taus, ks, rates)
def test_a_long_and_a_short_position_are_mirrored(q, gamma, variance, tau, k, A):
    """The centre goes the other way by as much, lower for who is long; the spread stays."""
    for formula in (lambda q: avellaneda_stoikov(q, gamma, variance, tau, k), lambda q: glft(q, gamma, variance, A, k)):
        (shift, half), (mirrored, same) = formula(q), formula(-q)
        assert (mirrored, same) == (-shift, half)
        assert shift * q >= 0
        assert half > 0


def test_at_the_horizon_only_the_spread_of_the_intensity_is_left():
    """Tau = 0: no lean, however large the position."""
    assert avellaneda_stoikov(40.0, 0.1, 4.0, 0.0, 1.5) == (0.0, pytest.approx(np.log(1 + 0.1 / 1.5) / 0.1, rel=1e-14))


prices, shown = st.floats(1e-4, 1e6), st.just(0.0) | st.floats(1e-9, 1e9)


@given(prices, st.floats(1e-4, 1e3), shown, shown)
def test_the_microprice_lies_in_the_spread_on_the_thinner_side(bid, spread, bid_qty, ask_qty):
    """More is bid than offered: nearer to the ask, and the other way round; as much, or nothing: the mid."""
    ask = bid + spread
    price, mid, ulps = microprice(bid, ask, bid_qty, ask_qty), (bid + ask) / 2, 1e-14 * ask
    assert bid - ulps <= price <= ask + ulps
    assert (price - mid) * np.sign(bid_qty - ask_qty) >= -ulps
    if bid_qty == ask_qty:
        assert price == pytest.approx(mid, rel=1e-14)


def test_the_microprice_of_round_numbers():
    """Three bid for each one offered: three quarters of the way to the ask; one side alone: the other side's price."""
    assert microprice(100.0, 101.0, 3.0, 1.0) == 100.75
    assert microprice(100.0, 101.0, 1.0, 3.0) == 100.25
    assert microprice(100.0, 101.0, 5.0, 0.0) == 101.0
    assert microprice(100.0, 101.0, 0.0, 5.0) == 100.0
    assert microprice(100.0, 101.0, 0.0, 0.0) == 100.5


@given(prices, st.floats(1e-4, 1e3), st.floats(1e-6, 1e9), st.floats(1e-6, 1e9))
def test_the_microprice_is_what_decimals_make_of_it(bid, spread, bid_qty, ask_qty):
    """The weighted mean, to the last digits."""
    b, a, x, y = decimals(bid, bid + spread, bid_qty, ask_qty)
    assert microprice(bid, bid + spread, bid_qty, ask_qty) == pytest.approx(float((b * y + a * x) / (x + y)), rel=1e-14)
