"""Thinning dense layers: towers whose redundancy was planted, and brute force."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from model_toys import SLOTS, scramble, some_ids
from scipy import stats

from training.models.reaction import FusionForm, Tower
from training.structural.dense import Affine, DenseTower, embedded, folded
from training.structural.pruning import (
    by_magnitude,
    by_rank,
    by_units,
    choose_ranks,
    eliminate,
    nonzero,
    observe,
    rank_parameters,
    removal_order,
    without_units,
)

WIDTHS = (12, 24, 16, 1)


def tower_of(seed: int, widths: tuple[int, ...] = WIDTHS, *, squares: bool = False) -> DenseTower:
    rng = np.random.default_rng(seed)
    layers = tuple(
        Affine(rng.normal(0, 2 * before**-0.5, (before, after)), rng.normal(0, 0.3, after))
        for before, after in pairwise(widths)
    )
    return DenseTower(layers, rng.normal(0, 0.05, widths[1]) if squares else None)


def rows_of(tower: DenseTower, seed: int = 0, count: int = 800) -> tuple[np.ndarray, np.ndarray]:
    """Embedded rows, and labels drawn from the tower's own probabilities, so that its weights are right."""
    rng = np.random.default_rng([seed, 1])
    x = rng.normal(0, 1, (count, tower.layers[0].weight.shape[0])).astype(np.float32)
    return x, (rng.random(count) < 1 / (1 + np.exp(-tower.logits(x)))).astype(np.uint8)


def loss_of(tower: DenseTower, x: np.ndarray, label: np.ndarray) -> float:
    z = tower.logits(x)
    return float(np.mean(np.logaddexp(0.0, z) - label * z))


@pytest.mark.parametrize("kind", ["tower", "form"])
def test_folded_layers_score_rows_as_the_model_does(kind: str) -> None:
    model = Tower(SLOTS, (6, 5, 4)) if kind == "tower" else FusionForm(SLOTS, (6, 5, 4))
    scramble(model, 3)
    model.eval()
    context, candidate = some_ids(300)
    x = embedded(model, context.numpy(), candidate.numpy())
    with torch.no_grad():
        expected = model(context, candidate).numpy()
    np.testing.assert_allclose(folded(model).logits(x), expected, rtol=1e-4, atol=1e-5)
    projections = sum(slot.dim for slot in SLOTS) * 6
    assert folded(model).parameters == projections + 6 + 6 + 6 * 5 + 5 + 5 * 4 + 4 + 4 + 1


@pytest.mark.parametrize("squares", [False, True])
@pytest.mark.parametrize("widths", [WIDTHS, (12, 24, 1)])
def test_statistics_are_those_of_autograd(widths: tuple[int, ...], squares: bool) -> None:
    tower = tower_of(1, widths, squares=squares)
    x, label = rows_of(tower, count=300)
    h = torch.from_numpy(x).double()
    inputs, pre = [], []
    for layer in tower.layers:
        h.requires_grad_().retain_grad()
        inputs.append(h)
        z = h @ torch.from_numpy(layer.weight) + torch.from_numpy(layer.bias)
        z.retain_grad()
        pre.append(z)
        h = torch.relu(z)
    target = torch.from_numpy(label).double()[:, None]
    q = torch.zeros(widths[1]).double() if tower.quadratic is None else torch.from_numpy(tower.quadratic)
    logit = pre[-1] + pre[0].square() @ q[:, None]
    np.testing.assert_allclose(tower.logits(x), logit.detach().numpy()[:, 0], atol=1e-4)
    torch.nn.functional.binary_cross_entropy_with_logits(logit, target, reduction="sum").backward()
    for known, h, z in zip(observe(tower, x, label), inputs, pre, strict=True):
        values, slope = h.detach().numpy(), h.grad.numpy()
        np.testing.assert_allclose(known.mean, values.mean(0))
        np.testing.assert_allclose(known.covariance, np.cov(values.T, bias=True), atol=1e-12)
        np.testing.assert_allclose(known.sensitivity, slope.T @ slope / 300, atol=1e-12)
        np.testing.assert_allclose(known.slope, np.sqrt((z.grad.numpy() ** 2).mean(0)), rtol=1e-9)


@pytest.mark.parametrize("each_layer", [False, True])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_thinning_by_magnitude_equals_brute_force(share: float, each_layer: bool) -> None:
    tower = tower_of(2)
    x, label = rows_of(tower)
    statistics = observe(tower, x, label)
    room = int(share * tower.parameters) - tower.biases
    sizes = {}
    for place, layer in enumerate(tower.layers):
        for i, j in np.ndindex(*layer.weight.shape):
            size = abs(layer.weight[i, j]) * statistics[place].covariance[i, i] ** 0.5
            sizes[place, i, j] = size if each_layer else size * statistics[place].slope[j]
    if each_layer:
        kept = set()
        for place, layer in enumerate(tower.layers):
            mine = sorted((key for key in sizes if key[0] == place), key=lambda key: -sizes[key])
            kept |= set(mine[: int(layer.weight.size * room / tower.weights)])
    else:
        kept = set(sorted(sizes, key=lambda key: -sizes[key])[:room])
    h = x.astype(np.float64)
    for place, layer in enumerate(tower.layers):
        z = np.tile(layer.bias, (len(h), 1))
        for i, j in np.ndindex(*layer.weight.shape):
            z[:, j] += layer.weight[i, j] * (h[:, i] if (place, i, j) in kept else statistics[place].mean[i])
        h = np.maximum(z, 0)
    thin = by_magnitude(tower, statistics, int(share * tower.parameters), each_layer=each_layer)
    np.testing.assert_allclose(thin.logits(x), z[:, 0], atol=1e-4)
    assert nonzero(thin) == len(kept) + tower.biases <= share * tower.parameters


def test_a_layer_of_planted_rank_loses_nothing_until_that_rank() -> None:
    plain = tower_of(3)
    rng = np.random.default_rng(3)
    thin = Affine(rng.normal(0, 1, (24, 3)) @ rng.normal(0, 0.4, (3, 16)), plain.layers[1].bias)
    tower = DenseTower((plain.layers[0], thin, plain.layers[2]))
    x, label = rows_of(tower)
    statistics, expected = observe(tower, x, label), tower.logits(x)
    for rank in (16, 8, 3):
        np.testing.assert_allclose(by_rank(tower, statistics, [99, rank, 99]).logits(x), expected, atol=1e-4)
    whole = loss_of(tower, x, label)
    losses = [loss_of(by_rank(tower, statistics, [99, rank, 99]), x, label) for rank in (2, 1, 0)]
    assert whole + 1e-3 < losses[0] < losses[1] < losses[2]
    # Within a budget, the directions that say nothing are the first to go.
    budget = tower.parameters - rank_parameters((24, 16), 99) + rank_parameters((24, 16), 3)
    assert choose_ranks(tower, statistics, budget) == [12, 3, 1]


def test_ranks_keep_to_their_budget_and_a_low_rank_layer_is_the_best_of_its_rank() -> None:
    tower = tower_of(4)
    x, label = rows_of(tower)
    statistics = observe(tower, x, label)
    for share in (0.9, 0.6, 0.3, 0.1, 0.0):
        ranks = choose_ranks(tower, statistics, int(share * tower.parameters))
        shapes = [layer.weight.shape for layer in tower.layers]
        left = sum(rank_parameters(shape, rank) for shape, rank in zip(shapes, ranks, strict=True)) + tower.biases
        assert left <= max(share * tower.parameters, tower.biases)
    known, layer = statistics[0], tower.layers[0]
    values, vectors = np.linalg.eigh(known.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    thin = by_rank(tower, statistics, [5, 99, 99]).layers[0]
    assert np.linalg.matrix_rank(thin.weight) == 5
    error = np.linalg.norm(root @ (layer.weight - thin.weight) * known.slope)
    assert error**2 == pytest.approx(
        (np.linalg.svd(root @ layer.weight * known.slope, compute_uv=False)[5:] ** 2).sum()
    )


def planted() -> tuple[DenseTower, set[tuple[int, int]]]:
    """A tower with dead units, doubles, sums of others and units that nobody reads, and which of them can go."""
    tower = tower_of(5, (12, 20, 14, 1))
    first, second, last = (Affine(layer.weight.copy(), layer.bias.copy()) for layer in tower.layers)
    first.bias[0], first.weight[:, 0] = -50.0, 0.0  # dead
    first.bias[1], first.weight[:, 1] = 3.0, 0.0  # always the same
    first.weight[:, 3], first.bias[3] = first.weight[:, 2], first.bias[2]  # a double
    first.weight[:, 4], first.bias[4] = 2 * first.weight[:, 2], 2 * first.bias[2]  # and one of another scale
    second.weight[5] = 0.0  # read by nobody
    second.weight[:, 7], second.bias[7] = second.weight[:, 6], second.bias[6]
    last.weight[8] = 0.0
    return DenseTower((first, second, last)), {(0, 0), (0, 1), (0, 5), (1, 8)}


def test_dead_double_and_unread_units_all_go_first_and_for_free() -> None:
    tower, free = planted()
    x, label = rows_of(tower, count=2000)
    statistics = observe(tower, x, label)
    order = removal_order(tower, statistics)
    first = set(order[:7])
    assert free <= first
    assert len(first & {(0, 2), (0, 3), (0, 4)}) == 2
    assert len(first & {(1, 6), (1, 7)}) == 1
    np.testing.assert_allclose(without_units(tower, statistics, order[:7]).logits(x), tower.logits(x), atol=2e-3)
    assert np.abs(without_units(tower, statistics, order[:8]).logits(x) - tower.logits(x)).max() > 2e-2


def test_a_unit_that_nobody_reads_is_the_least_important_whatever_it_does() -> None:
    tower = tower_of(8)
    tower.layers[1].weight[9] = 0.0
    tower.layers[0].weight[:, 9] *= 100.0
    x, label = rows_of(tower)
    assert removal_order(tower, observe(tower, x, label))[0] == (0, 9)


def test_what_stands_in_for_a_double_is_as_important_as_both() -> None:
    double = tower_of(11, (12, 20, 1))
    first, last = double.layers
    first.weight[:, 3], first.bias[3] = first.weight[:, 2], first.bias[2]
    merged = Affine(last.weight.copy(), last.bias)
    merged.weight[2], merged.weight[3] = last.weight[2] + last.weight[3], 0.0
    x, label = rows_of(double)
    found = []
    for tower in (double, DenseTower((first, merged))):
        order, importance = eliminate(observe(tower, x, label)[1])
        found.append(next(cost for unit, cost in zip(order[1:], importance[1:], strict=True) if unit in {2, 3}))
    assert found[0] == pytest.approx(found[1], rel=0.05)


@pytest.mark.parametrize(("squares", "least"), [(False, 0.8), (True, 0.7)])  # a unit and its square add up, here
def test_importance_orders_units_as_the_loss_without_each_does(squares: bool, least: float) -> None:
    tower = tower_of(6, squares=squares)
    x, label = rows_of(tower, count=4000)
    statistics = observe(tower, x, label)
    rank = {entry: place for place, entry in enumerate(removal_order(tower, statistics))}
    units = [(0, unit) for unit in range(24) if (0, unit) in rank]
    worse = [loss_of(without_units(tower, statistics, [entry]), x, label) for entry in units]
    assert stats.spearmanr([rank[entry] for entry in units], worse).statistic > least


@pytest.mark.parametrize("squares", [False, True])
def test_units_go_until_the_parameters_fit(squares: bool) -> None:
    tower = tower_of(7, squares=squares)
    x, label = rows_of(tower)
    statistics = observe(tower, x, label)
    order = removal_order(tower, statistics)
    assert len(order) == len(set(order)) == 24 + 16 - 2
    before = tower.parameters
    for share in (1.0, 0.7, 0.3, 0.1):
        thin = by_units(tower, statistics, order, int(share * tower.parameters))
        assert thin.parameters <= min(before, share * tower.parameters) or thin.layers[1].weight.size == 1
        numbers = [array for layer in thin.layers for array in (layer.weight, layer.bias)]
        assert thin.parameters == sum(array.size for array in numbers) + squares * len(thin.layers[0].bias)
        before = thin.parameters
    assert by_units(tower, statistics, order, tower.parameters).logits(x) == pytest.approx(tower.logits(x), abs=1e-4)


# Squares: what goes with a unit, and what is left of what they said.


def test_what_a_square_is_said_to_cost_is_the_loss_without_it() -> None:
    tower = tower_of(12, (12, 10, 1), squares=True)
    x, label = rows_of(tower, count=20_000)
    p = 1.0 / (1.0 + np.exp(-tower.logits(x)))
    first = tower.layers[0]
    said = np.square(x @ first.weight + first.bias) * tower.quadratic

    def loss(z: np.ndarray) -> float:
        return float(np.mean(np.logaddexp(0.0, z) - p * z))

    whole = tower.logits(x)
    without = [loss(whole - said[:, unit] + said[:, unit].mean()) - loss(whole) for unit in range(10)]
    np.testing.assert_allclose(observe(tower, x, label)[1].squares, without, rtol=0.15)


def test_a_dead_unit_goes_for_free_and_takes_a_square_with_it_at_its_mean() -> None:
    tower = tower_of(13, squares=True)
    first, q = tower.layers[0], tower.quadratic
    assert q is not None
    first.bias[3:5], q[3:5] = -15.0, (0.0, 0.02)  # both dead; one of them is read by the logit
    x, label = rows_of(tower)
    statistics = observe(tower, x, label)
    order = removal_order(tower, statistics)
    assert order[0] == (0, 3)
    assert order.index((0, 4)) > 5
    thin = without_units(tower, statistics, [(0, 4)])
    assert thin.quadratic is not None
    assert np.array_equal(thin.quadratic, np.delete(q, 4))
    square = q[4] * np.square(x @ first.weight[:, 4] + first.bias[4])
    np.testing.assert_allclose(thin.logits(x), tower.logits(x) - square + square.mean(), atol=1e-3)


@pytest.mark.parametrize("method", ["magnitude", "rank"])
def test_squares_keep_their_mean_when_the_first_layer_is_thinned(method: str) -> None:
    tower = tower_of(14, (12, 10, 1), squares=True)
    tower.layers[1].weight[:] = 0.0  # all that the logit reads are squares
    x, label = rows_of(tower)
    statistics = observe(tower, x, label)
    if method == "rank":
        thin = by_rank(tower, statistics, [4, 99])
    else:
        thin = by_magnitude(tower, statistics, tower.parameters // 2, each_layer=False)
        assert nonzero(thin) <= tower.parameters // 2
    assert np.abs(thin.logits(x) - tower.logits(x)).max() > 0.1
    assert thin.logits(x).mean() == pytest.approx(tower.logits(x).mean(), abs=1e-4)
