"""What the logit reads of squared units is merged exactly, and costs nothing where it is off."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from forms import SLOTS, form_logits, random_form, random_ids, served_ids
from model_toys import SLOTS as TOYS
from model_toys import clicks

from model_export.facts import calibration_flops, check_cost, tower_flops
from model_export.fusion import FusionFacts, fuse, fuse_towers, logits
from model_export.fusion.tower import first_layer
from model_export.graph import dense_flops, serialise
from model_export.latency import session
from model_export.parity import sigmoid
from model_export.passes import apply_passes
from model_export.to_onnx import to_onnx
from training.calibration import IDENTITY, Calibration
from training.dtf import DtfConfig
from training.models.reaction import Tower, TowerPair
from training.phases.checkpoint import CheckpointStore
from training.towers.schedule import Schedule
from training.train_config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

    from model_export.fusion import FusedTower
    from model_export.graph import Graph
    from training.models.reaction import FusionForm

IDS = random_ids(SLOTS, 300)
CALIBRATIONS = {
    "identity": IDENTITY,
    "affine": Calibration((1.4,), (), -0.3),
    "piecewise": Calibration((0.5, 1.7, 0.9), (-0.6, 0.1), -0.4),
}


def scored(tower: FusedTower, graph: Graph) -> np.ndarray:
    context, candidate = served_ids(SLOTS, tower, IDS)
    return session(serialise(graph)).run(None, {"context_ids": context, "candidate_ids": candidate})[0]


def squaring(graph: Graph) -> list[str]:
    """Names of what squares: nodes that multiply a value by itself, and the squares' weights."""
    nodes = [node.name for node in graph.model.graph.node if node.op_type == "Mul" and node.input[0] == node.input[1]]
    return nodes + [c.name for c in graph.model.graph.initializer if "quadratic" in c.name]


def without_squares(form: FusionForm, *branches: int) -> FusionForm:
    for branch in branches:
        form.state_dict()[f"branches.{branch}.quadratic"].zero_()
    return form


@pytest.mark.parametrize("widths", [(7,), (12, 8), (9, 6, 5)])
@pytest.mark.parametrize("kind", CALIBRATIONS)
def test_form_merged_tower_and_graph_agree_under_every_calibration_at_every_depth(
    kind: str, widths: tuple[int, ...]
) -> None:
    form, calibration = random_form(widths=widths, seed=3), CALIBRATIONS[kind]
    expected = calibration(form_logits(form.serving(), IDS))
    tower = fuse(fuse_towers(form), FusionFacts(calibration=calibration))
    np.testing.assert_allclose(logits(tower, *served_ids(SLOTS, tower, IDS)), expected, rtol=1e-9, atol=1e-9)
    graph = apply_passes(to_onnx(tower))
    np.testing.assert_allclose(scored(tower, graph), sigmoid(expected), rtol=0, atol=1e-6)
    check_cost(graph, form, calibration)
    # Without its squares it is another model, so the agreement is theirs too.
    plain = calibration(form_logits(without_squares(form, 0, 1).serving(), IDS))
    assert np.abs(plain - expected).max() > 1e-2


def test_squares_are_a_bilinear_form_of_every_pair_of_fields() -> None:
    tower = fuse_towers(random_form(seed=5))
    q = tower.quadratic
    assert q is not None
    parts = [np.tile(tower.bias, (len(IDS[1]), 1))]
    for field in tower.fields:
        own = IDS[field.side == "candidate"]
        parts.append(first_layer(field, own[:, field.first : field.first + field.width]))
    pairs = sum(np.einsum("nk,k,nk->n", one, q[:, 0], other) for one, other in product(parts, parts))
    form = random_form(seed=5)
    squares = form_logits(form, IDS) - form_logits(without_squares(form, 0, 1), IDS)
    np.testing.assert_allclose(pairs, squares, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("branch", [0, 1])
def test_one_branch_with_squares_is_enough_for_the_graph_to_square(branch: int) -> None:
    form = without_squares(random_form(), 1 - branch)
    expected = form_logits(form.serving(), IDS)
    tower = fuse(fuse_towers(form), FusionFacts())
    graph = apply_passes(to_onnx(tower))
    assert squaring(graph)
    np.testing.assert_allclose(scored(tower, graph), sigmoid(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", CALIBRATIONS)
def test_without_squares_the_graph_has_none_and_costs_what_a_tower_of_layers_does(kind: str) -> None:
    form, calibration = random_form(), CALIBRATIONS[kind]
    graphs = []
    for squared in (True, False):
        tower = fuse(fuse_towers(form), FusionFacts(calibration=calibration))
        graphs.append(apply_passes(to_onnx(tower)))
        # A limit that no product can hide in: at most what is folded away.
        assert dense_flops(graphs[-1]) <= tower_flops(form) + calibration_flops(calibration, 8 + 12 * squared)
        assert bool(squaring(graphs[-1])) == squared
        without_squares(form, 0, 1)
    assert tower.quadratic is None
    units = len(calibration.slopes) if kind == "piecewise" else 1
    assert dense_flops(graphs[0]) - dense_flops(graphs[1]) == 2 * 12 * units


@pytest.mark.parametrize("given", [False, True], ids=["from the start", "from a pair"])
@pytest.mark.parametrize("on", [True, False])
def test_switched_off_no_phase_trains_squares_and_the_graph_of_the_result_has_none(
    tmp_path: Path, on: bool, given: bool
) -> None:
    torch.manual_seed(0)
    pair = TowerPair(Tower(TOYS, (8, 4)), Tower(TOYS, (8, 4))) if given else None
    schedule = Schedule(
        TOYS,
        clicks(600),
        clicks(200, seed=50),
        dtf=DtfConfig(widths=(8, 4), quadratic=on),
        config=TrainConfig(batch_size=64, epochs=4, table_l2=10.0, rate=3e-3, device="cpu"),
        seed=1,
        store=CheckpointStore(tmp_path, "toy", resume=False),
        progress=lambda *_: None,
    )
    with torch.random.fork_rng():
        result = schedule.run(pair)
    bodies = [result.pair.a.body, result.pair.b.body, *result.form.parallel]
    if on:
        bodies = bodies[2:]  # a tower that finds nothing better than what it began with keeps that
    assert [bool(body.quadratic.any()) for body in bodies] == [on] * len(bodies)
    tower = fuse(fuse_towers(result.form), FusionFacts())
    assert bool(squaring(apply_passes(to_onnx(tower)))) == on
