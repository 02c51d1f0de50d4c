"""Random fusion forms, ids that fit them, and a run directory around one, for the tests of the export."""

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import strategies as st

from model_export.fusion import FusedTower
from training.models.base import FieldSlot
from training.models.reaction import FusionForm, Tower, TowerPair

torch.set_num_threads(1)

Ids = np.ndarray

# One of everything: both sides, both poolings, several dimensions, training-only fields of one and of several values.
SLOTS = (
    FieldSlot("user", "context", 0, 1, 11, 4),
    FieldSlot("tags", "context", 1, 3, 9, 2, "mean", 2),
    FieldSlot("hour", "context", 4, 1, 7, 4),
    FieldSlot("item", "candidate", 0, 1, 13, 8),
    FieldSlot("genres", "candidate", 1, 2, 8, 4, "sum", 2),
    FieldSlot("position", "candidate", 3, 1, 6, 4, serving_constant_id=3),
    FieldSlot("badges", "candidate", 4, 2, 6, 2, "sum", 2, serving_constant_id=4),
    FieldSlot("price", "candidate", 6, 1, 5, 2),
)


def randomise(module: torch.nn.Module, seed: int) -> None:
    """Give every weight a value that matters: no zeros, no ones, and variances that are positive."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith(("running_var", "mix", "gates", "norms.0.weight", "norms.1.weight", "norms.2.weight")):
            tensor.copy_(0.4 + 0.3 * noise.abs())
        elif name.endswith("bias") and "norms" in name:
            tensor.copy_(0.5 + 0.2 * noise)  # most units live for some rows
        else:
            tensor.copy_(0.3 * noise)


def random_form(slots: Sequence[FieldSlot] = SLOTS, widths: Sequence[int] = (12, 8), seed: int = 0) -> FusionForm:
    """A fusion form in evaluation mode. Its pad rows hold values: the form must not read them."""
    form = FusionForm(tuple(slots), tuple(widths))
    randomise(form, seed)
    return form.eval()


def random_pair(slots: Sequence[FieldSlot] = SLOTS, widths: Sequence[int] = (12, 8), seed: int = 0) -> TowerPair:
    pair = TowerPair(Tower(slots, widths), Tower(slots, widths))
    randomise(pair, seed)
    return pair.eval()


def random_ids(slots: Sequence[FieldSlot], rows: int, seed: int = 0) -> tuple[Ids, Ids]:
    """Ids on the layout of the slots; multi-valued ones end in pads, and some rows are all pads."""
    generator = np.random.default_rng(seed)
    sides = {}
    for side in ("context", "candidate"):
        width = max((slot.first + slot.width for slot in slots if slot.side == side), default=0)
        sides[side] = np.zeros((rows, width), np.int32)
    for slot in slots:
        ids = generator.integers(0, slot.rows, (rows, slot.width), np.int32)
        if slot.pad_id is not None:
            used = generator.integers(0, slot.width + 1, (rows, 1))
            ids[np.arange(slot.width) >= used] = slot.pad_id
        sides[slot.side][:, slot.first : slot.first + slot.width] = ids
    return sides["context"], sides["candidate"]


def form_logits(form: FusionForm, ids: tuple[Ids, Ids], *, double: bool = True) -> np.ndarray:
    """What the form itself says."""
    with torch.no_grad():
        scores = (form.double() if double else form.float())(*(torch.from_numpy(side) for side in ids))
    form.float()
    return scores.double().numpy()


def served_ids(slots: Sequence[FieldSlot], tower: FusedTower, ids: tuple[Ids, Ids]) -> tuple[Ids, Ids]:
    """Ids on the layout of the slots in the columns of a tower that was laid out anew."""
    where = {slot.name: slot for slot in slots}
    out = []
    for side, own in zip(("context", "candidate"), ids, strict=True):
        cuts = [own[:, :0]]
        for field in tower.side(side):
            slot = where[field.name]
            cuts.append(own[:, slot.first : slot.first + slot.width])
        out.append(np.concatenate(cuts, axis=1))
    return out[0], out[1]


@st.composite
def slots(draw: st.DrawFn) -> tuple[FieldSlot, ...]:
    """One to six fields of any kind."""
    made = []
    first = {"context": 0, "candidate": 0}
    for number in range(draw(st.integers(1, 6))):
        side = draw(st.sampled_from(["context", "candidate"]))
        pooling = draw(st.sampled_from([None, None, "sum", "mean"]))
        width = draw(st.integers(1, 3)) if pooling else 1
        rows = draw(st.integers(4, 20))
        slot = FieldSlot(
            name=f"field_{number}",
            side=side,
            first=first[side],
            width=width,
            rows=rows,
            dim=draw(st.sampled_from([1, 2, 3, 8])),
            pooling=pooling,
            pad_id=2 if pooling else None,
            serving_constant_id=draw(st.sampled_from([None, None, None, 0, 3])),
        )
        first[side] += width
        made.append(slot)
    return tuple(made)


widths = st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple)
