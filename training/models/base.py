"""What a model sees of the data: one slot a field, and how looked-up rows are pooled.

Shapes: B rows of a batch, C columns of both id matrices side by side (context first), F slots, V_f rows and d_f
columns of slot f's table, D = sum of d_f.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import ConfigDict

from service.features import MultiValuedField

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from service.features import FeatureEncoder

MISSING_ID = 0
UNKNOWN_ID = 1
MULTI_VALUED_PAD_ID = 2


@dataclass(frozen=True)
class FieldSlot:
    """One field as the model sees it.

    Attributes:
        name: The field's name.
        side: "context" or "candidate".
        first: The first column in its side's id matrix.
        width: Number of columns (1, or a multi-valued field's `max_values`).
        rows: V_f, the number of ids (missing and out of vocabulary included).
        dim: d_f, the columns of the slot's table.
        pooling: "sum" or "mean" for a multi-valued field.
        pad_id: The id whose row is zero and stays zero (multi-valued fields only).
        serving_constant_id: Training-only field: the id read when serving.

    Raises:
        ValueError: Sizes that cannot be, or a pooling without its pad id.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    name: str
    side: Literal["context", "candidate"]
    first: int
    width: int
    rows: int
    dim: int
    pooling: Literal["sum", "mean"] | None = None
    pad_id: int | None = None
    serving_constant_id: int | None = None

    def __post_init__(self) -> None:
        if self.first < 0 or self.width < 1 or self.rows < 1 or self.dim < 1:
            raise ValueError(
                f"slot {self.name!r}: expected first >= 0 and width, rows, dim >= 1; "
                f"got first={self.first}, width={self.width}, rows={self.rows}, dim={self.dim}"
            )
        if (self.pooling is None) != (self.pad_id is None):
            raise ValueError(f"slot {self.name!r}: pooling and pad_id go together; got {self.pooling}, {self.pad_id}")
        if self.pooling is None and self.width != 1:
            raise ValueError(f"slot {self.name!r}: width {self.width} needs a pooling")
        for label, row in (("pad_id", self.pad_id), ("serving_constant_id", self.serving_constant_id)):
            if row is not None and not 0 <= row < self.rows:
                raise ValueError(f"slot {self.name!r}: {label} {row} is no row of a table of {self.rows}")


def field_slots(
    encoder: "FeatureEncoder", dim: "Callable[[str, int], int] | Mapping[str, int]"
) -> tuple[FieldSlot, ...]:
    """Return a slot for every column slice of the encoder, context side first.

    Args:
        encoder: The prepared data's encoder.
        dim: d_f by name, or a function of name and number of rows.
    """
    slots = []
    for side in ("context", "candidate"):
        for piece in encoder.columns(side):
            field = encoder.field(piece.name)
            rows = len(encoder.vocabulary(piece.name))
            multi = isinstance(field, MultiValuedField)
            constant = None
            if field.serving_constant is not None:
                constant = int(encoder.encode_values(piece.name, [field.serving_constant])[0, 0])
            slots.append(
                FieldSlot(
                    name=piece.name,
                    side=side,
                    first=piece.first,
                    width=piece.width,
                    rows=rows,
                    dim=dim(piece.name, rows) if callable(dim) else dim[piece.name],
                    pooling=field.pooling if isinstance(field, MultiValuedField) else None,
                    pad_id=MULTI_VALUED_PAD_ID if multi else None,
                    serving_constant_id=constant,
                )
            )
    return tuple(slots)


def with_dims(slots: "Sequence[FieldSlot]", dims: "Mapping[str, int]") -> tuple[FieldSlot, ...]:
    """Return the slots named in `dims`, each with its dimension."""
    return tuple(replace(slot, dim=dims[slot.name]) for slot in slots if slot.name in dims)


def slot_ids(slot: FieldSlot, context_ids: "Tensor", candidate_ids: "Tensor") -> "Tensor":
    """Return the slot's columns (B|1, width) of its side's id matrix."""
    ids = context_ids if slot.side == "context" else candidate_ids
    return ids[:, slot.first : slot.first + slot.width]


def pool(slot: FieldSlot, looked_up: "Tensor", ids: "Tensor") -> "Tensor":
    """Pool a slot's looked-up rows.

    Args:
        slot: The slot.
        looked_up: (B, width, d_f) rows of its table.
        ids: (B, width) ids.

    Returns:
        (B, d_f): the row itself, or the sum or mean over the ids that are not the pad id.
    """
    if slot.pad_id is None:
        return looked_up[:, 0]
    # The mask, not only the zero row, keeps the pad row's gradient at exactly zero.
    used = torch.ne(ids, slot.pad_id).unsqueeze(-1).to(looked_up.dtype)
    total = (looked_up * used).sum(1)
    if slot.pooling == "sum":
        return total
    return total / used.sum(1).clamp(min=1.0)


def embedding_order(slots: "Sequence[FieldSlot]") -> tuple[int, ...]:
    """Return the order of slots in the embedded row (B, D): by dimension, single-valued before multi-valued.

    So a stack of all tables of one dimension is looked up by one gather, and its single-valued part needs no copy.
    """
    return tuple(sorted(range(len(slots)), key=lambda i: (slots[i].dim, slots[i].pooling is not None, i)))


def embed(
    slots: "Sequence[FieldSlot]", tables: "Sequence[Tensor]", context_ids: "Tensor", candidate_ids: "Tensor"
) -> "Tensor":
    """Look up and pool every slot, in `embedding_order`.

    Returns:
        (B, D), where B is the larger number of rows of the two id matrices (one context row is shared by all).
    """
    B = max(len(context_ids), len(candidate_ids))
    parts = []
    for i in embedding_order(slots):
        ids = slot_ids(slots[i], context_ids, candidate_ids)
        parts.append(pool(slots[i], tables[i][ids], ids).expand(B, -1))
    return torch.cat(parts, 1)
