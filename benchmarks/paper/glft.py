"""Quotes of Gueant, Lehalle and Fernandez-Tapia (2013) far from the horizon, by eigenvector; and reference numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST = 30  # the largest position


@dataclass(frozen=True)
class Reference:
    """One line of the reference numbers: four parameters, and what quotes come of them, as it is printed there."""

    sigma: float
    A: float
    k: float
    gamma: float
    half: float
    skew: float
    closed_5: tuple[float, float]  # bid and ask distance at a position of 5
    exact_0: float  # bid distance at none
    exact_5: tuple[float, float]


REFERENCES = (
    Reference(0.3, 0.9, 0.3, 0.01, 3.312915, 0.067866, (3.65224, 2.97359), 3.31305, (3.65348, 2.97252)),
    Reference(0.3, 0.9, 0.3, 0.05, 3.161301, 0.156575, (3.94418, 2.37842), 3.16200, (3.94938, 2.37350)),
    Reference(0.6, 0.9, 0.9, 0.01, 1.143952, 0.077937, (1.53364, 0.75427), 1.14447, (1.53659, 0.75110)),
    Reference(2.0, 140.0, 1.5, 0.1, 0.671244, 0.051717, (0.92983, 0.41266), 0.67163, (0.93178, 0.41045)),
)

TUTORIAL = (10.69, 2.98616236, 0.04235741, 0.05, 20.47208534, 9.76326866)  # hftbacktest's: the same six, in ticks


def exact(q: int, sigma: float, A: float, k: float, gamma: float, most: int = MOST) -> tuple[float, float]:
    """Distances (bid, ask) from the mid at position q, |q| < `most`.

    f is the eigenvector of the smallest eigenvalue of tridiag(-eta, alpha q^2, -eta). The bid is
    ln(f_q / f_(q + 1)) / k + c1 away and the ask ln(f_q / f_(q - 1)) / k + c1, with c1 = ln(1 + gamma / k) / gamma.
    """
    alpha = k / 2 * gamma * sigma**2
    eta = A * (1 + gamma / k) ** -(1 + k / gamma)
    positions = np.arange(-most, most + 1)
    beside = np.full(2 * most, -eta)
    matrix = np.diag(alpha * positions.astype(np.float64) ** 2) + np.diag(beside, 1) + np.diag(beside, -1)
    f = np.abs(np.linalg.eigh(matrix).eigenvectors[:, 0])
    c1, at = np.log(1 + gamma / k) / gamma, q + most
    return float(np.log(f[at] / f[at + 1]) / k + c1), float(np.log(f[at] / f[at - 1]) / k + c1)
