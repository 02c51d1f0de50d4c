"""Takes dense parameters out of a trained tower, three ways, and puts the best constant or linear stand-in in place.

- *magnitude*: single weights go. Over all layers, the smallest first by w^2 s^2 E[(dL/dz)^2] / 2, the loss that is
  expected without it (s the standard deviation of its input, z its unit's pre-activation; optimal brain damage: Le Cun,
  Denker, Solla, NIPS 1989). In every layer alike, the smallest first by |w| s. Neither changes when a unit is scaled
  up and the next layer down, as |w| alone does.
- *singular values*: a layer becomes a product of two thin ones. What is kept are the principal directions of its
  pre-activations, each times its derivative's root mean square: singular vectors of W, weighted by data on both sides.
- *units*: whole hidden units go, the least important first. Importance is the loss that is expected from the part of a
  unit that the units kept do not tell linearly, to second order: residual variance times E[(dL/dh)^2] (optimal brain
  surgeon: Hassibi, Stork, NIPS 1992; sensitivities as Molchanov et al., CVPR 2019). So dead units and doubles are free.

What goes is replaced by its mean, a unit by its regression on those kept: both fit into the layers that are there.
Statistics are those of a sample of training rows; nothing is retrained. A tower's squares (`DenseTower.quadratic`) stay
with their units, and go with them; what their mean loses, the output's bias gets.

Letters: n sample rows; a layer has I inputs and O outputs; C (I, I) covariance of inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from training.structural.dense import Affine, DenseTower

if TYPE_CHECKING:
    from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.float64]"

SMALLEST_SLOPE: Final = 1e-6  # as a share of a layer's largest: a dead unit must not divide by 0
RIDGE: Final = 1e-7  # of the mean variance: what makes a covariance of dead or doubled units invertible


@dataclass(frozen=True)
class LayerStatistics:
    """What goes through one layer on the sample.

    Attributes:
        mean: (I,) of its inputs.
        covariance: (I, I) C.
        slope: (O,) root mean square of the loss's derivative by its pre-activations, over 0.
        sensitivity: (I, I) mean product of the loss's derivatives by its inputs.
        squares: (I,) loss expected where an input's unit goes and its square with it, beside what it is to this layer.
    """

    mean: Floats
    covariance: Floats
    slope: Floats
    sensitivity: Floats
    squares: Floats


def observe(tower: DenseTower, x: NDArray[np.float32], label: NDArray[np.uint8]) -> list[LayerStatistics]:
    """Statistics of every layer on embedded rows (n, D) with labels (n,)."""
    inputs, h = [], x.astype(np.float64)
    for layer in tower.layers:
        inputs.append(h)
        z = h @ layer.weight + layer.bias
        h = np.maximum(z, 0.0)
    first = inputs[0] @ tower.layers[0].weight + tower.layers[0].bias
    q = np.zeros(first.shape[1]) if tower.quadratic is None else tower.quadratic
    said = np.square(first) * q
    logit = z + said.sum(1, keepdims=True)
    error = gradient = (1.0 / (1.0 + np.exp(-logit)) - label[:, None]).astype(np.float64)
    found = []
    for place in reversed(range(len(inputs))):
        h, layer = inputs[place], tower.layers[place]
        slope = np.sqrt((gradient**2).mean(0))  # by the pre-activations
        slope = np.maximum(slope, SMALLEST_SLOPE * max(float(slope.max()), 1e-300))
        gradient = gradient @ layer.weight.T  # by the layer's inputs
        mean = h.mean(0)
        covariance = (h - mean).T @ (h - mean) / len(h)
        squares = 0.5 * np.square(error * (said - said.mean(0))).mean(0) if place == 1 else np.zeros(h.shape[1])
        found.append(LayerStatistics(mean, covariance, slope, gradient.T @ gradient / len(h), squares))
        gradient = gradient * (h > 0.0)  # by the pre-activations before; of no use before the first layer
        if place == 1:
            gradient = gradient + 2.0 * error * first * q
    return found[::-1]


def by_magnitude(
    tower: DenseTower, statistics: list[LayerStatistics], parameters: int, *, each_layer: bool
) -> DenseTower:
    """Zero the smallest weights.

    Args:
        tower: what to prune.
        statistics: of its layers.
        parameters: how many to leave, biases included.
        each_layer: the same share in every layer; over all layers if False.
    """
    sizes = [
        np.abs(layer.weight) * np.sqrt(np.diag(known.covariance))[:, None] * (1.0 if each_layer else known.slope)
        for layer, known in zip(tower.layers, statistics, strict=True)
    ]
    room = max(0, parameters - tower.biases - tower.squares)
    if each_layer:
        kept = [_largest(size, int(size.size * room / tower.weights)) for size in sizes]
    else:
        mask = _largest(np.concatenate([size.ravel() for size in sizes]), room)
        ends = np.cumsum([size.size for size in sizes])[:-1]
        kept = [part.reshape(size.shape) for part, size in zip(np.split(mask, ends), sizes, strict=True)]
    layers = tuple(
        Affine(np.where(keep, layer.weight, 0.0), layer.bias + known.mean @ np.where(keep, 0.0, layer.weight))
        for layer, known, keep in zip(tower.layers, statistics, kept, strict=True)
    )
    return _with_lost_squares(tower, DenseTower(layers, tower.quadratic), statistics[0])


def _with_lost_squares(tower: DenseTower, thin: DenseTower, known: LayerStatistics) -> DenseTower:
    """The thinned tower with the mean of what its squares lost in its output's bias; `known` of the first layer."""
    lost = _mean_of_squares(tower, known) - _mean_of_squares(thin, known)
    last = thin.layers[-1]
    return replace(thin, layers=(*thin.layers[:-1], Affine(last.weight, last.bias + lost)))


def _mean_of_squares(tower: DenseTower, known: LayerStatistics) -> float:
    """What squares add to a logit in the mean."""
    if tower.quadratic is None:
        return 0.0
    first = tower.layers[0]
    mean = known.mean @ first.weight + first.bias
    variance = (first.weight * (known.covariance @ first.weight)).sum(0)
    return float((mean**2 + variance) @ tower.quadratic)


def _largest(values: Floats, count: int) -> NDArray[np.bool_]:
    """Where the `count` largest values are; of equal ones the first."""
    mask = np.zeros(values.size, dtype=bool)
    mask[np.argsort(-values.ravel(), kind="stable")[:count]] = True
    return mask.reshape(values.shape)


def nonzero(tower: DenseTower) -> int:
    """Parameters that are left where single weights went: weights other than 0, and all biases."""
    return sum(int(np.count_nonzero(layer.weight)) for layer in tower.layers) + tower.biases + tower.squares


def by_rank(tower: DenseTower, statistics: list[LayerStatistics], ranks: list[int]) -> DenseTower:
    """Every layer at a rank (`ranks[l]`, at least its smaller side for a layer left as it is)."""
    layers = []
    for layer, known, rank in zip(tower.layers, statistics, ranks, strict=True):
        if rank >= min(layer.weight.shape):
            layers.append(layer)
            continue
        _, vectors = _directions(layer, known)
        kept = vectors[:, :rank]
        project = (kept * known.slope[:, None]) @ (kept / known.slope[:, None]).T
        weight = layer.weight @ project
        layers.append(Affine(weight, layer.bias + known.mean @ (layer.weight - weight)))
    return _with_lost_squares(tower, DenseTower(tuple(layers), tower.quadratic), statistics[0])


def choose_ranks(tower: DenseTower, statistics: list[LayerStatistics], parameters: int) -> list[int]:
    """Ranks within a number of parameters: directions of all layers by loss expected without them, per parameter."""
    found = []
    for place, (layer, known) in enumerate(zip(tower.layers, statistics, strict=True)):
        values, _ = _directions(layer, known)
        found += [(value / sum(layer.weight.shape), -rank, place) for rank, value in enumerate(values, 1)]
    ranks = [0] * len(tower.layers)
    left = parameters - tower.biases - tower.squares
    for _, rank, place in sorted(found, reverse=True):
        if ranks[place] >= -rank:
            continue  # kept whole already
        shape = tower.layers[place].weight.shape
        before, after = (rank_parameters(shape, value) for value in (ranks[place], -rank))
        if after - before > left:
            break
        left -= after - before
        ranks[place] = min(shape) if after == shape[0] * shape[1] else -rank
    return ranks


def rank_parameters(shape: tuple[int, ...], rank: int) -> int:
    """Numbers in a layer's matrix at a rank: two thin factors, or the matrix itself where it is smaller."""
    return min(rank * (shape[0] + shape[1]), shape[0] * shape[1])


def _directions(layer: Affine, known: LayerStatistics) -> tuple[Floats, Floats]:
    """Principal variances, falling, and directions (O, O) of a layer's pre-activations times their slope."""
    weighted = layer.weight * known.slope
    values, vectors = np.linalg.eigh(weighted.T @ known.covariance @ weighted)
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


def removal_order(tower: DenseTower, statistics: list[LayerStatistics]) -> list[tuple[int, int]]:
    """(hidden layer, unit), the least important per parameter first; the last unit of a layer is not among them."""
    queues = []
    for place in range(len(tower.layers) - 1):
        order, importance = eliminate(statistics[place + 1])
        cost = tower.layers[place].weight.shape[0] + tower.layers[place + 1].weight.shape[1] + 1
        # A unit cannot go before those of its layer that it was ranked after.
        price = np.maximum.accumulate(importance) / cost
        queues += [(value, place, unit) for value, unit in zip(price[:-1].tolist(), order[:-1], strict=True)]
    return [(place, unit) for _, place, unit in sorted(queues, key=lambda entry: entry[:2])]


def eliminate(known: LayerStatistics) -> tuple[list[int], Floats]:
    """Units (H,) of one layer in the order of removal, and what each costs in loss when it goes."""
    H = len(known.mean)
    precision = np.linalg.inv(known.covariance + _ridge(known.covariance) * np.eye(H))
    sensitivity = known.sensitivity.copy()
    alive = np.ones(H, dtype=bool)
    order, importance = [], []
    for _ in range(H):
        residual = 1.0 / np.maximum(np.diag(precision), 1e-300)
        cost = 0.5 * residual * np.maximum(np.diag(sensitivity), 0.0) + known.squares
        unit = int(np.argmin(np.where(alive, cost, np.inf)))
        order.append(unit)
        importance.append(float(cost[unit]))
        alive[unit] = False
        # Its regression on those left takes its place, so its derivative joins theirs.
        stand_in = np.where(alive, -precision[unit] / precision[unit, unit], 0.0)
        row = sensitivity[unit]
        sensitivity += np.outer(stand_in, row) + np.outer(row, stand_in) + row[unit] * np.outer(stand_in, stand_in)
        precision -= np.outer(precision[unit], precision[unit]) / precision[unit, unit]
        precision[unit, unit] = 1.0
    return order, np.array(importance)


def without_units(tower: DenseTower, statistics: list[LayerStatistics], removed: list[tuple[int, int]]) -> DenseTower:
    """The tower without some hidden units, each replaced by its regression on those of its layer that are kept."""
    layers, quadratic = list(tower.layers), tower.quadratic
    for place in range(len(layers) - 1):
        known, layer, after = statistics[place + 1], layers[place], layers[place + 1]
        gone = np.zeros(len(layer.bias), dtype=bool)
        gone[[unit for number, unit in removed if number == place]] = True
        C = known.covariance[np.ix_(~gone, ~gone)]
        regression = np.linalg.solve(C + _ridge(C) * np.eye(len(C)), known.covariance[np.ix_(~gone, gone)])
        constant = known.mean[gone] - known.mean[~gone] @ regression
        layers[place] = Affine(layer.weight[:, ~gone], layer.bias[~gone])
        if place == 0 and quadratic is not None:
            quadratic = quadratic[~gone]
        layers[place + 1] = Affine(
            after.weight[~gone] + regression @ after.weight[gone], after.bias + constant @ after.weight[gone]
        )
    return _with_lost_squares(tower, DenseTower(tuple(layers), quadratic), statistics[0])


def by_units(
    tower: DenseTower, statistics: list[LayerStatistics], order: list[tuple[int, int]], parameters: int
) -> DenseTower:
    """The tower without the first units of an order, as few as leave at most this many parameters."""
    widths = [tower.layers[0].weight.shape[0], *(len(layer.bias) for layer in tower.layers)]
    taken, squares = 0, tower.quadratic is not None
    for place, _ in order:
        if sum((before + 1) * after for before, after in pairwise(widths)) + squares * widths[1] <= parameters:
            break
        widths[place + 1] -= 1
        taken += 1
    return without_units(tower, statistics, order[:taken])


def _ridge(covariance: Floats) -> float:
    return RIDGE * max(float(np.trace(covariance)) / max(len(covariance), 1), 1e-300)
