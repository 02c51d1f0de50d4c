"""Puts a run's calibration into the merged tower's last layers: exact, and no graph of its own.

Without knots, offset + slope z scales the output layer. With knots t_1 < t_2 < ... it is a sum of hinges,

    c(z) = offset - slope_0 relu(t_1 - z) + slope_1 relu(z - t_1) + sum_k>1 (slope_k - slope_k-1) relu(z - t_k)

which is one more hidden layer of as many units as there are pieces, whose inputs are +-(h w + b + pre_0^2 q - t).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from model_export.fusion.tower import Dense

if TYPE_CHECKING:
    from model_export.fusion.tower import FusedTower
    from training.calibration import Calibration


def calibrate(tower: FusedTower, calibration: Calibration) -> FusedTower:
    """Return the tower whose logit is the calibrated one; the tower itself where that is the same."""
    weight, bias = tower.output.weight, tower.output.bias
    slopes, knots = np.array(calibration.slopes), np.array(calibration.knots)
    if calibration.kind == "identity":
        return tower
    if calibration.kind == "affine":
        return replace(
            tower,
            output=Dense(slopes[0] * weight, slopes[0] * bias + calibration.offset),
            quadratic=None if tower.quadratic is None else slopes[0] * tower.quadratic,
        )
    sign = np.array([-1.0, *np.ones(len(knots))])
    hinges = Dense(weight * sign, sign * (bias - np.array([knots[0], *knots])))
    steps = np.array([-slopes[0], slopes[1], *np.diff(slopes[1:])])
    output = Dense(steps[:, None], np.array([calibration.offset]))
    squared = None if tower.quadratic is None else tower.quadratic * sign
    return replace(tower, layers=(*tower.layers, hinges), output=output, quadratic=squared, squared_into=-2)
