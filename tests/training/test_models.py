"""Towers and the fusion form against loops written from their formulas, and their files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from model_toys import SLOTS, scramble, some_ids
from safetensors.torch import load_file, save_file

from training.models.activation import dropped, rectified
from training.models.base import FieldSlot, embed, embedding_order, with_dims
from training.models.files import ModelFormatError, load_fusion_form, load_pair, save_model, save_pair
from training.models.reaction import FusionForm, Tower, TowerPair

ROOT = Path(__file__).resolve().parents[2]

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

WIDTHS = (6, 5, 4)


def a_form(seed: int = 0, slots: Sequence[FieldSlot] = SLOTS) -> FusionForm:
    form = FusionForm(slots, WIDTHS).eval()
    scramble(form, seed)
    return form


def norm(state: dict[str, np.ndarray], key: str, x: np.ndarray) -> np.ndarray:
    centred = (x - state[f"{key}.running_mean"]) / np.sqrt(state[f"{key}.running_var"] + 1e-5)
    return centred * state[f"{key}.weight"] + state[f"{key}.bias"]


def pooled(slot: FieldSlot, table: np.ndarray, ids: np.ndarray) -> np.ndarray:
    used = [table[i] for i in ids if i != slot.pad_id]
    if slot.pooling is None:
        return table[ids[0]]
    total = np.sum(used, axis=0) if used else np.zeros(slot.dim)
    return total / max(1, len(used)) if slot.pooling == "mean" else total


def row_by_row(form: FusionForm, context: Tensor, candidate: Tensor, constants: bool = False) -> list[float]:
    """The formulas of the fusion form's docstring in float64, one row at a time."""
    s = {k: v.double().numpy() for k, v in form.state_dict().items()}
    logits = []
    for c, i in zip(context.numpy(), candidate.numpy(), strict=True):
        pre = np.zeros(WIDTHS[0])
        for b in (0, 1):
            z = np.zeros(WIDTHS[0])
            for f, slot in enumerate(SLOTS):
                ids = (c if slot.side == "context" else i)[slot.first : slot.first + slot.width]
                if constants and slot.serving_constant_id is not None:
                    ids = np.array([slot.serving_constant_id])
                e = pooled(slot, s[f"tables.{f}"], ids)
                z += s[f"branches.{b}.gates"][f] * (e @ s[f"branches.{b}.projections.{f}"])
            pre += s[f"branches.{b}.mix"] * norm(s, f"branches.{b}.norms.0", z)
        h, squares = np.maximum(pre, 0), pre**2
        for layer in range(len(WIDTHS) - 1):
            pre = np.zeros(WIDTHS[layer + 1])
            for b in (0, 1):
                p = f"branches.{b}"
                linear = s[f"{p}.linears.{layer}.weight"] @ h + s[f"{p}.linears.{layer}.bias"]
                pre += s[f"{p}.mix"] * norm(s, f"{p}.norms.{layer + 1}", linear)
                pre += s[f"{p}.cross.{layer}.weight"] @ h
            h = np.maximum(pre, 0)
        outputs = [
            s[f"{p}.mix"] * (s[f"{p}.output.weight"][0] @ h + s[f"{p}.output.bias"][0] + s[f"{p}.quadratic"] @ squares)
            for p in ("branches.0", "branches.1")
        ]
        logits.append(sum(outputs))
    return logits


def test_the_fusion_form_equals_its_formulas_row_by_row() -> None:
    form, (context, candidate) = a_form(), some_ids(40)
    assert form(context, candidate).tolist() == pytest.approx(row_by_row(form, context, candidate), abs=1e-5)


def test_a_serving_form_reads_the_constant_and_leaves_the_training_form_alone() -> None:
    form, (context, candidate) = a_form(), some_ids(20)
    before = candidate.clone()
    served = form.serving()(context, candidate).tolist()
    assert served == pytest.approx(row_by_row(form, context, candidate, constants=True), abs=1e-5)
    assert served != pytest.approx(form(context, candidate).tolist(), abs=1e-3)
    assert torch.equal(candidate, before)


def test_one_context_row_is_shared_by_all_candidates() -> None:
    form, (context, candidate) = a_form(), some_ids(12)
    shared = form(context[:1], candidate)
    assert torch.allclose(shared, form(context[:1].expand(12, -1), candidate))


def test_a_single_row_keeps_its_batch_axis() -> None:
    form, (context, candidate) = a_form(), some_ids(1)
    assert form(context, candidate).shape == (1,)


def test_the_pad_row_counts_for_nothing_whatever_it_holds() -> None:
    form, (context, candidate) = a_form(), some_ids(30)
    before = form(context, candidate)
    for slot, table in zip(SLOTS, form.tables, strict=True):
        if slot.pad_id is not None:
            table.data[slot.pad_id] = 7.0
    assert torch.equal(form(context, candidate), before)


def test_embedding_order_puts_dimensions_together_and_single_values_first() -> None:
    assert embedding_order(SLOTS) == (1, 0, 2, 3, 4)
    context, candidate = some_ids(5)
    assert embed(SLOTS, list(a_form().tables), context, candidate).shape == (5, sum(slot.dim for slot in SLOTS))


# The merge by algebra, written here once more and independently of the exporter's.


def merged(form: FusionForm, context: Tensor, candidate: Tensor) -> Tensor:
    """Logits of one tower whose weights are the branches' merged ones (float64)."""
    s = {k: v.double() for k, v in form.state_dict().items()}
    mix = [s[f"branches.{b}.mix"] for b in (0, 1)]

    def affine(key: str) -> tuple[Tensor, Tensor]:
        scale = s[f"{key}.weight"] / torch.sqrt(s[f"{key}.running_var"] + 1e-5)
        return scale, s[f"{key}.bias"] - scale * s[f"{key}.running_mean"]

    z = torch.zeros(len(candidate), WIDTHS[0], dtype=torch.float64)
    for b in (0, 1):
        z += mix[b] * affine(f"branches.{b}.norms.0")[1]
    for f, slot in enumerate(form.slots):
        P = sum(
            mix[b]
            * s[f"branches.{b}.gates"][f]
            * s[f"branches.{b}.projections.{f}"]
            * affine(f"branches.{b}.norms.0")[0]
            for b in (0, 1)
        )
        z += embed((slot,), [s[f"tables.{f}"] @ P], context, candidate)
    h = torch.relu(z)
    for layer in range(len(WIDTHS) - 1):
        W, bias = 0.0, 0.0
        for b in (0, 1):
            scale, shift = affine(f"branches.{b}.norms.{layer + 1}")
            W = W + mix[b] * scale[:, None] * s[f"branches.{b}.linears.{layer}.weight"]
            W = W + s[f"branches.{b}.cross.{layer}.weight"]
            bias = bias + mix[b] * (scale * s[f"branches.{b}.linears.{layer}.bias"] + shift)
        h = torch.relu(h @ W.T + bias)
    w = sum(mix[b] * s[f"branches.{b}.output.weight"][0] for b in (0, 1))
    q = sum(mix[b] * s[f"branches.{b}.quadratic"] for b in (0, 1))
    return h @ w + z**2 @ q + sum(mix[b] * s[f"branches.{b}.output.bias"][0] for b in (0, 1))


def test_one_merged_tower_equals_the_fusion_form() -> None:
    form, (context, candidate) = a_form(3), some_ids(60, 3)
    assert torch.allclose(merged(form, context, candidate).float(), form(context, candidate), atol=1e-5)


def test_every_tensor_of_either_branch_counts_in_the_form() -> None:
    form, (context, candidate) = a_form(9), some_ids(60, 4)
    whole = merged(form, context, candidate).float()
    for name, value in form.state_dict().items():
        if not value.is_floating_point():
            continue
        saved = value.clone()
        value.mul_(1.05).add_(0.01)
        assert not torch.allclose(whole, form(context, candidate), atol=1e-5), name
        value.copy_(saved)
    assert torch.allclose(whole, form(context, candidate), atol=1e-5)


def test_a_pair_is_the_mean_of_its_towers() -> None:
    pair = TowerPair(Tower(SLOTS, WIDTHS), Tower(SLOTS, WIDTHS)).eval()
    scramble(pair.a, 1)
    scramble(pair.b, 2)
    context, candidate = some_ids(25)
    a, b = pair.both(context, candidate)
    assert torch.allclose(a, pair.a(context, candidate))
    assert torch.allclose(b, pair.b(context, candidate))
    assert torch.allclose(pair(context, candidate), 0.5 * (a + b))


def test_towers_of_different_shape_are_no_pair() -> None:
    with pytest.raises(ValueError, match="same slots and widths"):
        TowerPair(Tower(SLOTS, (4,)), Tower(SLOTS, (5,)))


def test_a_saved_form_comes_back_bit_by_bit(tmp_path: Path) -> None:
    form, (context, candidate) = a_form(5), some_ids(30)
    save_model(tmp_path, form)
    back = load_fusion_form(tmp_path)
    assert back.slots == form.slots
    assert back.widths == form.widths
    assert torch.equal(back(context, candidate), form(context, candidate))


SAVE_SIX = """
import sys
from pathlib import Path
import torch
from model_toys import SLOTS
from training.models.files import save_weights
from training.models.reaction import FusionForm
torch.manual_seed(0)
form = FusionForm(SLOTS, (4,))
for number in range(6):
    save_weights(Path(sys.argv[1]) / f"{number}.safetensors", form)
"""


def test_equal_weights_are_equal_bytes_whichever_process_saves_them(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        command = [sys.executable, "-W", "error", "-c", SAVE_SIX, str(tmp_path / name)]
        where = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "training")])
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": where})
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 12
    assert len({path.read_bytes() for path in files}) == 1


@pytest.mark.parametrize("mapped", [False, True])
def test_a_saved_pair_comes_back_with_dimensions_of_its_own(tmp_path: Path, mapped: bool) -> None:
    save_model(tmp_path, a_form())
    narrow = with_dims(SLOTS, {slot.name: 2 for slot in SLOTS})
    pair = TowerPair(Tower(narrow, WIDTHS), Tower(narrow, WIDTHS)).eval()
    save_pair(tmp_path, pair)
    back, (context, candidate) = load_pair(tmp_path, mapped=mapped), some_ids(9)
    assert [slot.dim for slot in back.slots] == [2] * len(SLOTS)
    assert torch.equal(back(context, candidate), pair(context, candidate))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=1), "version"),
        (lambda d: d.update(extra=1), "extra"),
        (lambda d: d["slots"][0].update(dim="3"), r"slots\.0\.dim"),
        (lambda d: d["slots"][0].update(surprise=1), r"slots\.0\.surprise"),
        (lambda d: d["slots"][0].update(rows=12), r"tables\.0: expected .*\(12, 3\), got .*\(11, 3\)"),
        (lambda d: d.update(widths=[6, 5]), "unexpected"),
    ],
)
def test_a_model_file_that_does_not_fit_is_refused(tmp_path: Path, change: object, message: str) -> None:
    save_model(tmp_path, a_form())
    path = tmp_path / "model.json"
    document = json.loads(path.read_text())
    change(document)  # type: ignore[operator]
    path.write_text(json.dumps(document))
    with pytest.raises(ModelFormatError, match=message):
        load_fusion_form(tmp_path)


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    save_model(tmp_path, a_form())
    weights = load_file(tmp_path / "weights.safetensors")
    weights["branches.1.output.weight"][0, 1] = float("nan")
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(ModelFormatError, match=r"branches\.1\.output\.weight"):
        load_fusion_form(tmp_path)


def test_a_file_that_is_no_safetensors_or_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"model\.json"):
        load_fusion_form(tmp_path)
    save_model(tmp_path, a_form())
    (tmp_path / "weights.safetensors").write_bytes(b"no")
    with pytest.raises(ModelFormatError, match=r"weights\.safetensors"):
        load_fusion_form(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": 0},
        {"dim": 0},
        {"first": -1},
        {"width": 2},
        {"pooling": "sum"},
        {"pad_id": 2},
        {"serving_constant_id": 11},
    ],
)
def test_a_slot_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="slot 'user'"):
        FieldSlot(**{**SLOTS[0].__dict__, **wrong})


def test_dropped_units_give_nothing_and_take_no_gradient_and_the_others_are_scaled_up() -> None:
    torch.manual_seed(0)
    pre = torch.randn(200, 301, requires_grad=True)  # 301: no multiple of the bits of a draw
    out = rectified(pre, 0.3)
    upstream = torch.randn(200, 301)
    out.backward(upstream)
    active = pre.detach() > 0
    kept = out.detach() != 0
    assert not (kept & ~active).any()
    share = kept[active].double().mean()
    assert abs(share - 0.7) < 4 * (0.3 * 0.7 / active.sum()) ** 0.5
    assert torch.allclose(out, torch.where(kept, pre / 0.7, 0.0), rtol=1e-4)
    assert torch.allclose(pre.grad, torch.where(kept, upstream / 0.7, 0.0), rtol=1e-4)
    # Units are dropped independently of their neighbours, which share a draw.
    both = active[:, 1:] & active[:, :-1]
    together = (kept[:, 1:] & kept[:, :-1])[both].double().mean()
    assert abs(together - 0.49) < 4 * (0.49 * 0.51 / both.sum()) ** 0.5


def test_without_dropout_the_activation_is_relu() -> None:
    pre = torch.randn(9, 4)
    assert torch.equal(rectified(pre, 0.0), torch.relu(pre))


def test_dropped_units_are_as_many_as_asked_for_independent_and_scaled_and_so_are_their_gradients() -> None:
    torch.manual_seed(3)
    x = torch.full((500, 401), -2.0, requires_grad=True)
    out = dropped(x, 0.3)
    kept = (out != 0.0).float()
    error = (0.3 * 0.7 / x.numel()) ** 0.5
    assert abs(1.0 - kept.mean().item() - 0.3) < 4 * error
    beside = (kept[:, 1:] * kept[:, :-1]).mean().item()  # four units take one word: their bits are different ones
    assert abs(beside - 0.49) < 4 * (0.49 * 0.51 / x.numel()) ** 0.5 * 2
    assert torch.allclose(out, -2.0 * kept / 0.7, rtol=1e-4)
    out.sum().backward()
    assert torch.allclose(x.grad, kept / 0.7, rtol=1e-4)
    assert dropped(x, 0.0) is x
