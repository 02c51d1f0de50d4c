"""Merging: exact by algebra, every weight of both branches counts, and nothing is changed in place."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from forms import SLOTS, form_logits, random_form, random_ids, served_ids, slots, widths
from hypothesis import given, settings
from hypothesis import strategies as st

from model_export.errors import NonFiniteError, ParityValueError
from model_export.fusion import FusionFacts, dense_flops, fuse, fuse_towers, logits
from model_export.fusion.batch_norm import fold_batch_norm
from model_export.fusion.bias import correct_negative_sampling, drop_silent_fields, fold_serving_constants
from model_export.graph import serialise
from model_export.latency import session
from model_export.parity import Reference, Rows, check_parity
from model_export.passes import apply_passes
from model_export.to_onnx import to_onnx

if TYPE_CHECKING:
    from forms import Ids

    from training.models.base import FieldSlot
    from training.models.reaction import FusionForm

IDS = random_ids(SLOTS, 512)
WEIGHTS = [name for name, tensor in random_form().state_dict().items() if tensor.is_floating_point()]
BRANCH_WEIGHTS = [name for name in WEIGHTS if name.startswith("branches.")]
ON_SERVING = [slot for slot in SLOTS if slot.serving_constant_id is None]


@settings(max_examples=60, deadline=None)
@given(slots(), widths, st.integers(0, 1000))
def test_the_merged_tower_equals_the_fusion_form_whatever_its_fields_and_widths(
    slots: tuple[FieldSlot, ...], widths: tuple[int, ...], seed: int
) -> None:
    form = random_form(slots, widths, seed)
    ids = random_ids(slots, 32, seed)
    expected = form_logits(form, ids)
    merged = logits(fuse_towers(form), *ids)
    np.testing.assert_allclose(merged, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(merged, form_logits(form, ids, double=False), rtol=1e-5, atol=1e-5)


def brute_force(form: FusionForm, ids: tuple[Ids, Ids]) -> np.ndarray:
    """The contract's formulas, one row, one branch and one unit at a time."""
    state = {name: tensor.double().numpy() for name, tensor in form.state_dict().items()}

    def norm(branch: int, layer: int, x: np.ndarray) -> np.ndarray:
        p = f"branches.{branch}.norms.{layer}."
        scale = state[p + "weight"] / np.sqrt(state[p + "running_var"] + 1e-5)
        return (x - state[p + "running_mean"]) * scale + state[p + "bias"]

    scores = []
    for row in range(len(ids[1])):
        pre = np.zeros(form.widths[0])
        for b in (0, 1):
            z = np.zeros(form.widths[0])
            for f, slot in enumerate(form.slots):
                own = ids[0 if slot.side == "context" else 1][row, slot.first : slot.first + slot.width]
                used = [i for i in own if slot.pad_id is None or i != slot.pad_id]
                e = sum((state[f"tables.{f}"][i] for i in used), np.zeros(slot.dim))
                if slot.pooling == "mean":
                    e = e / max(len(used), 1)
                z += state[f"branches.{b}.gates"][f] * (e @ state[f"branches.{b}.projections.{f}"])
            pre += state[f"branches.{b}.mix"] * norm(b, 0, z)
        h, squares = np.maximum(pre, 0), pre**2
        for layer, _ in enumerate(pairwise(form.widths)):
            pre = 0.0
            for b in (0, 1):
                p = f"branches.{b}."
                linear = state[f"{p}linears.{layer}.weight"] @ h + state[f"{p}linears.{layer}.bias"]
                pre = pre + state[f"{p}mix"] * norm(b, layer + 1, linear) + state[f"{p}cross.{layer}.weight"] @ h
            h = np.maximum(pre, 0)
        out = [
            state[f"branches.{b}.output.weight"][0] @ h
            + state[f"branches.{b}.output.bias"][0]
            + state[f"branches.{b}.quadratic"] @ squares
            for b in (0, 1)
        ]
        scores.append(sum(state[f"branches.{b}.mix"] * out[b] for b in (0, 1)))
    return np.array(scores)


def test_the_merged_tower_equals_the_formulas_written_out_by_hand() -> None:
    form = random_form(widths=(12, 8, 5))
    ids = tuple(side[:40] for side in IDS)
    np.testing.assert_allclose(logits(fuse_towers(form), *ids), brute_force(form, ids), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", BRANCH_WEIGHTS)
def test_perturbing_one_weight_of_either_branch_changes_the_export_and_fails_parity_with_the_unperturbed(
    name: str,
) -> None:
    form, perturbed = random_form(), random_form()
    tensor = perturbed.state_dict()[name].view(-1)
    tensor[len(tensor) // 2] += 0.05
    facts = FusionFacts()
    before, after = fuse(fuse_towers(form), facts), fuse(fuse_towers(perturbed), facts)
    served = served_ids(SLOTS, before, IDS)
    assert np.abs(logits(after, *served) - logits(before, *served)).max() > 1e-5
    rows = [Rows("rows", IDS, served)]
    graph, perturbed_graph = (session(serialise(apply_passes(to_onnx(tower)))) for tower in (before, after))
    check_parity(Reference(form), before, graph, rows)
    check_parity(Reference(perturbed), after, perturbed_graph, rows)
    with pytest.raises(ParityValueError, match="logit of the merged tower against the fusion form"):
        check_parity(Reference(form), after, perturbed_graph, rows)
    with pytest.raises(ParityValueError, match="logit of the merged tower against the fusion form"):
        check_parity(Reference(perturbed), before, graph, rows)
    # The graph alone, perturbed behind a right tower's back, does not pass either.
    with pytest.raises(ParityValueError, match=r"pctr of model\.onnx"):
        check_parity(Reference(form), before, perturbed_graph, rows)


@pytest.mark.parametrize("name", [name for name in WEIGHTS if name.startswith("tables.")])
def test_perturbing_a_table_changes_the_export(name: str) -> None:
    form, perturbed = random_form(), random_form()
    perturbed.state_dict()[name].add_(0.05)
    changed = logits(fuse_towers(perturbed), *IDS) - logits(fuse_towers(form), *IDS)
    assert np.abs(changed).max() > 1e-5


def test_the_merged_tower_has_the_dense_flops_of_one_tower() -> None:
    one = 2 * (sum(slot.dim for slot in SLOTS) * 12 + 12 * 8 + 8 + 12)
    assert dense_flops(fuse_towers(random_form())) == one


def test_merging_leaves_the_form_as_it_was() -> None:
    form = random_form()
    before = deepcopy(form.state_dict())
    fuse(fuse_towers(form), FusionFacts(0.1))
    assert all(torch.equal(before[name], tensor) for name, tensor in form.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["tables.3", "branches.1.norms.1.running_var", "branches.0.mix"])
def test_a_weight_that_is_no_number_is_refused_by_name_and_place(name: str, value: float) -> None:
    form = random_form()
    form.state_dict()[name].view(-1)[-1] = value
    with pytest.raises(NonFiniteError, match=rf"^{name}.*: expected finite weights, got {value} \(1 such"):
        fuse_towers(form)


def test_a_folded_batch_norm_equals_torchs() -> None:
    norm = torch.nn.BatchNorm1d(5, eps=1e-3).double()
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.normal_()
        norm.running_var.uniform_(0.01, 3)
    norm.eval()
    affine = fold_batch_norm({name: t.detach().numpy() for name, t in norm.state_dict().items()}, norm.eps)
    x = torch.randn(7, 5, dtype=torch.float64)
    with torch.no_grad():
        np.testing.assert_allclose(x.numpy() * affine.scale + affine.shift, norm(x).numpy(), rtol=1e-12, atol=1e-14)


def test_serving_constants_are_added_once_and_their_fields_are_gone() -> None:
    form = random_form()
    tower = fold_serving_constants(fuse_towers(form))
    assert [field.name for field in tower.fields] == [slot.name for slot in ON_SERVING]
    np.testing.assert_allclose(logits(tower, *IDS), form_logits(form.serving(), IDS), rtol=1e-9, atol=1e-9)
    # What the columns of training-only fields hold no longer matters.
    context_ids, candidate_ids = IDS[0], IDS[1].copy()
    candidate_ids[:, 3:6] = 1
    np.testing.assert_array_equal(logits(tower, context_ids, candidate_ids), logits(tower, *IDS))


def test_negative_sampling_is_undone_in_the_odds() -> None:
    tower = fuse_towers(random_form())
    odds, true_odds = np.exp(logits(tower, *IDS)), np.exp(logits(correct_negative_sampling(tower, 0.05), *IDS))
    np.testing.assert_allclose(true_odds, odds * 0.05)
    for rate in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"expected a share in \(0, 1\]"):
            correct_negative_sampling(tower, rate)


def test_a_field_goes_only_when_its_gate_is_closed_in_both_branches() -> None:
    form = random_form()
    gates = [form.state_dict()[f"branches.{branch}.gates"] for branch in (0, 1)]
    gates[0][[0, 3]] = 0.0
    gates[1][[0, 4]] = 0.0
    tower = fuse_towers(form)
    kept = drop_silent_fields(tower)
    assert {field.name for field in tower.fields} - {field.name for field in kept.fields} == {SLOTS[0].name}
    np.testing.assert_array_equal(logits(kept, *IDS), logits(tower, *IDS))


def test_one_context_row_scores_as_the_same_row_repeated() -> None:
    tower = fuse_towers(random_form())
    one = IDS[0][:1]
    repeated = np.repeat(one, len(IDS[1]), axis=0)
    # BLAS multiplies one row by another routine than many, which costs an ulp of the context's projections.
    np.testing.assert_allclose(logits(tower, one, IDS[1]), logits(tower, repeated, IDS[1]), rtol=0, atol=1e-15)
