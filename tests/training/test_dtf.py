"""The phases, the alignment of towers, and what distillation trains on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_toys import CONTEXT_COLUMNS, SLOTS, Arrays, bank_of, scramble, some_ids

from training.dtf import (
    DtfConfig,
    FusionLearner,
    Teacher,
    TowerLearner,
    calibrated,
    cross_entropy,
    with_unknown,
)
from training.models.base import embed, with_dims
from training.models.reaction import Tower, TowerPair
from training.phases.learner import Batch
from training.towers.alignment import build_fusion_form, count_ids, match_units
from training.towers.gates import FieldGates
from training.towers.layout import extended_pair, without_closed

WIDTHS = (8, 6)
CPU = torch.device("cpu")


def a_pair(seed: int = 0) -> TowerPair:
    a, b = Tower(SLOTS, WIDTHS), Tower(SLOTS, WIDTHS)
    scramble(a, seed)
    scramble(b, seed + 1)
    return TowerPair(a, b).eval()


def shuffled(tower: Tower, seed: int) -> Tower:
    """The same function with every layer's units in another order."""
    draw = np.random.default_rng(seed)
    orders = [torch.from_numpy(draw.permutation(H)) for H in tower.widths]
    copy = Tower(tower.slots, tower.widths).eval()
    state = {k: v.clone() for k, v in tower.state_dict().items()}
    for key, value in state.items():
        if ".projections." in key:
            state[key] = value[:, orders[0]]
        elif ".norms." in key and value.ndim:
            state[key] = value[orders[int(key.split(".")[2])]]
        elif ".linears." in key:
            layer = int(key.split(".")[2])
            state[key] = value[orders[layer + 1]]
            if value.ndim == 2:
                state[key] = state[key][:, orders[layer]]
        elif key == "body.quadratic":
            state[key] = value[orders[0]]
        elif key == "body.output.weight":
            state[key] = value[:, orders[-1]]
    copy.load_state_dict(state)
    return copy


def sample(rows: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    context, candidate = some_ids(rows, 9)
    return context.long(), candidate.long()


def counts_of(context: torch.Tensor, candidate: torch.Tensor) -> list[np.ndarray]:
    split = Arrays(context.int().numpy(), candidate.int().numpy(), np.zeros(len(context), np.uint8))
    return count_ids(SLOTS, split)


def test_units_of_a_reordered_copy_are_matched_one_to_one() -> None:
    tower = a_pair().a
    pair = TowerPair(tower, shuffled(tower, 5)).eval()
    context, candidate = sample()
    hidden = pair.hidden(*pair.first(*(embed(SLOTS, list(t.tables), context, candidate) for t in (pair.a, pair.b))))
    for (h, g), order in zip(hidden, match_units(pair, context, candidate), strict=True):
        alive = h.std(0) > 1e-6
        assert torch.allclose(h[:, alive], g[:, order][:, alive], atol=1e-5)


@pytest.mark.parametrize("dead", [False, True])
def test_fusing_a_tower_with_a_reordered_copy_of_itself_changes_nothing(dead: bool) -> None:
    tower = a_pair().a
    if dead:  # two units that the ReLU never lets through: only their squares tell them apart
        tower.body.norm_layers[0].bias.data[:2] -= 20.0
        tower.body.quadratic.data[:2] = torch.tensor([0.05, -0.1])
    # Statistics are estimated anew when fusing, so they have to be the sample's to begin with.
    context, candidate = sample(2000)
    for norm in tower.body.norm_layers:
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        tower.train()
        tower(context, candidate)
        tower.eval()
    pair = TowerPair(tower, shuffled(tower, 6)).eval()
    form = build_fusion_form(pair, SLOTS, counts_of(context, candidate), context, candidate).eval()
    with torch.no_grad():
        assert torch.allclose(form(context, candidate), tower(context, candidate), atol=1e-3)


def test_the_shared_table_is_the_best_of_its_rank() -> None:
    """Against a full SVD of the frequency-weighted, scaled, folded tables (Eckart and Young)."""
    pair = a_pair(3)
    context, candidate = sample(1000)
    counts = counts_of(context, candidate)
    form = build_fusion_form(pair, SLOTS, counts, context, candidate)
    order = match_units(pair, context, candidate)[0]
    for i, slot in enumerate(SLOTS):
        parts, rebuilt = [], []
        for tower, branch, units in ((pair.a, form.parallel[0], None), (pair.b, form.parallel[1], order)):
            norm = tower.body.norm_layers[0]
            assert norm.running_var is not None
            scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).abs()
            T = tower.tables[i] @ (tower.body.projections[i] * tower.body.gates[i])
            T, scale = (T, scale) if units is None else (T[:, units], scale[units])
            parts.append(T * scale)
            rebuilt.append(form.tables[i] @ branch.projections[i] * scale)
        root = torch.from_numpy(counts[i] + 1.0).double().sqrt()[:, None]
        whole = root * torch.cat(parts, 1).double()
        error = torch.linalg.norm(whole - root * torch.cat(rebuilt, 1).double())
        least = torch.linalg.svdvals(whole)[slot.dim :].square().sum().sqrt()
        assert float(error.detach()) == pytest.approx(float(least.detach()), rel=1e-3, abs=1e-3)


def test_cross_links_of_the_fused_form_start_at_zero_and_learn() -> None:
    pair = a_pair(4)
    context, candidate = sample()
    form = build_fusion_form(pair, SLOTS, counts_of(context, candidate), context, candidate)
    links = [link.weight for branch in form.parallel for link in branch.cross_layers]
    assert len(links) == 2 * (len(WIDTHS) - 1)
    assert not any(link.any() for link in links)
    form.train()(context, candidate).sum().backward()
    assert all(link.grad is not None and link.grad.any() for link in links)
    assert not any(len(tower.body.cross_layers) for tower in (pair.a, pair.b))


def test_the_pad_row_stays_zero_through_fusing() -> None:
    pair = a_pair(5)
    context, candidate = sample()
    form = build_fusion_form(pair, SLOTS, counts_of(context, candidate), context, candidate)
    for slot, table in zip(SLOTS, form.tables, strict=True):
        if slot.pad_id is not None:
            assert not table[slot.pad_id].any()


def test_a_fused_slot_may_be_wider_than_the_towers() -> None:
    pair = a_pair(6)
    context, candidate = sample()
    wide = with_dims(SLOTS, {slot.name: slot.dim + 2 for slot in SLOTS})
    form = build_fusion_form(pair, wide, counts_of(context, candidate), context, candidate).eval()
    assert torch.isfinite(form(context, candidate)).all()


def test_hidden_values_become_unknown_and_pads_and_missing_values_stay() -> None:
    torch.manual_seed(0)
    ids = torch.cat(some_ids(4000), 1)
    bank = bank_of(Tower(SLOTS, WIDTHS))
    hidden = with_unknown(ids, bank, 0.1)
    changed = hidden != ids
    assert (hidden[changed] == 1).all()
    pads = torch.zeros_like(changed)
    pads[:, [2, 3, 4, 5, 6]] = ids[:, [2, 3, 4, 5, 6]] == 2
    assert not changed[pads | (ids == 0)].any()
    free = ~pads & (ids > 1)
    assert changed[free].float().mean() == pytest.approx(0.095, abs=0.01)  # drawn with replacement
    assert torch.equal(with_unknown(ids, bank, 0.0), ids)


def test_the_fusion_learner_is_taught_on_the_rows_it_sees() -> None:
    torch.manual_seed(0)
    pair = a_pair(8)
    context, candidate = sample()
    form = build_fusion_form(pair, SLOTS, counts_of(context, candidate), context, candidate)
    config = DtfConfig(widths=WIDTHS, label_weight=0.25, teacher_weight=2.0)
    teacher = Teacher(pair.all, [bank_of(tower) for tower in pair.all])
    learner = FusionLearner(form, bank_of(form), config, teacher, unknown=0.1)
    label = torch.ones(len(context))
    logged = torch.cat([context, candidate], 1)
    batch = learner.prepare(Batch(logged, label, None))
    with torch.no_grad():
        said = pair(batch.ids[:, :CONTEXT_COLUMNS], batch.ids[:, CONTEXT_COLUMNS:])
    assert batch.teacher is not None
    assert torch.allclose(batch.teacher, said, atol=1e-5)
    embedded = [learner.banks[0].read(batch.ids)]
    logit = form.head(embedded[0])
    assert not torch.equal(batch.ids, logged)  # what was hidden from the form was hidden from its teacher
    labelled = cross_entropy(logit, label, None)
    expected = 0.25 * labelled + 2.0 * cross_entropy(logit, torch.sigmoid(said), None)
    assert torch.allclose(learner.loss(embedded, batch), expected, atol=1e-5)


def test_a_teacher_that_is_too_sure_is_calibrated_however_much_users_differ_in_their_rates() -> None:
    draw = np.random.default_rng(3)
    N, users = 4000, 12
    group = np.arange(N) % users
    truth = draw.normal(0.0, 1.0, N) + draw.normal(0.0, 1.5, users)[group]
    label = (draw.random(N) < 1.0 / (1.0 + np.exp(-truth))).astype(np.uint8)
    ids = np.zeros((N, 1), np.int32)
    found = calibrated((2.0 * truth).astype(np.float32), Arrays(ids, ids, label, group=group), 1)
    assert found.kind != "identity"
    assert found.slopes == pytest.approx([0.5] * len(found.slopes), abs=0.2)
    assert calibrated(truth.astype(np.float32), Arrays(ids, ids, label, group=group), 1).kind == "identity"


def test_a_weight_of_three_counts_as_three_rows_in_the_loss() -> None:
    logit, target = torch.randn(4), torch.tensor([0.0, 1.0, 0.3, 0.9])
    weight = torch.tensor([1.0, 3.0, 1.0, 2.0])
    rows = torch.tensor([0, 1, 1, 1, 2, 3, 3])
    many = cross_entropy(logit[rows], target[rows], None) * 7 / 4
    assert torch.allclose(cross_entropy(logit, target, weight), many)


def test_closed_gates_take_their_field_out_and_the_tower_says_the_same() -> None:
    tower = a_pair(9).a
    gates = FieldGates.for_slots(SLOTS, dict.fromkeys((slot.name for slot in SLOTS), 1.0), WIDTHS[0]).eval()
    gates.log_odds.data[[1, 4]] = torch.tensor([-6.0, -6.0])
    gates.log_odds.data[0] = 0.2  # half open
    small = without_closed(tower, gates).eval()
    assert [slot.name for slot in small.slots] == ["user", "ad", "genres"]
    context, candidate = some_ids(30)
    learner = TowerLearner("tower_a", tower, bank_of(tower), gates=gates)
    embedded = bank_of(tower).look_up(bank_of(tower).averages(), torch.cat([context, candidate], 1))
    assert torch.allclose(learner.outputs([embedded])["tower_a"], small(context, candidate), atol=1e-5)


def test_a_model_keeps_one_field_even_if_all_gates_close() -> None:
    tower = Tower(SLOTS, WIDTHS)
    gates = FieldGates.for_slots(SLOTS, {slot.name: -6.0 - i for i, slot in enumerate(SLOTS)}, WIDTHS[0]).eval()
    assert [slot.name for slot in without_closed(tower, gates).slots] == ["user"]


def test_a_grown_vocabulary_starts_new_rows_from_the_out_of_vocabulary_row() -> None:
    pair = a_pair(10)
    grown = [SLOTS[2], SLOTS[0], SLOTS[1], SLOTS[3], SLOTS[4]]
    grown[0] = type(SLOTS[2])(**{**SLOTS[2].__dict__, "rows": 12})
    wide = extended_pair(pair, grown).eval()
    context, candidate = some_ids(20)
    assert torch.allclose(wide(context, candidate), pair(context, candidate), atol=1e-5)
    unseen, unknown = candidate.clone(), candidate.clone()
    unseen[:, 3], unknown[:, 3] = 11, 1
    assert torch.allclose(wide(context, unseen), pair(context, unknown), atol=1e-5)


# The phases on data whose label is a parity of two fields.
