"""Look-ups of a baseline, as our own model has them: ids offset once a side, one Gather in stacked tables.

    context_ids (1|N, Cc) --+--> single-valued fields: one Gather in their stacked tables --> (1, F_c, d)
                            +--> each multi-valued field: a Gather, and its sum or mean   --> (1, d)

The same for candidate_ids (N, Ci). Columns are served in the order singles, then each multi-valued field, as our export
orders those of a bundle.

Shapes: N candidates, F fields of a side, d columns of a table, V_f ids of field f.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from onnx import TensorProto

from model_export.errors import GraphError
from model_export.to_onnx import Builder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from training.models.base import FieldSlot

    Float = NDArray[np.float64]

SIDES: Final = ("context", "candidate")


@dataclass(frozen=True)
class Tables:
    """The tables of one embedding layer.

    Attributes:
        values: Field to (V_f, d), pad rows zero.
        pooling: Multi-valued field to how it is pooled.
    """

    values: Mapping[str, Float]
    pooling: Mapping[str, Literal["sum", "mean"]]

    @property
    def dim(self) -> int:
        """The columns, d."""
        return int(next(iter(self.values.values())).shape[1])


class Side:
    """The fields that read one id matrix.

    Args:
        builder: Where nodes go.
        name: "context" or "candidate".
        slots: The fields of the side.

    Raises:
        GraphError: The side has no field.
    """

    def __init__(self, builder: Builder, name: str, slots: Sequence[FieldSlot]) -> None:
        if not slots:
            raise GraphError(f"expected fields on both sides, got none on the {name} side")
        self.builder = builder
        self.name = name
        self.singles = [slot for slot in slots if slot.pooling is None]
        self.multis = [slot for slot in slots if slot.pooling is not None]
        self.slots = [*self.singles, *self.multis]
        self.fields = [slot.name for slot in self.slots]
        self.columns = [slot.first + column for slot in self.slots for column in range(slot.width)]
        self._pieces: dict[str, str] = {}

    def flat(self, tables: Tables, pooled: Sequence[str] | None = None) -> str:
        """Every field's vector side by side, in the order of `fields`: (rows, F d).

        Args:
            tables: Of all fields.
            pooled: Of the multi-valued ones, where they are not just pooled as the tables say.
        """
        parts = [self._pooled(slot, tables) for slot in self.multis] if pooled is None else list(pooled)
        if self.singles:
            shape = self.builder.constant("shape", np.array([-1, tables.dim * len(self.singles)]))
            parts.insert(0, self.builder.add("Reshape", [self.vectors(tables), shape]))
        return parts[0] if len(parts) == 1 else self.builder.add("Concat", parts, axis=1)

    def stack(self, tables: Tables) -> str:
        """Every field's vector below the other: (rows, F, d)."""
        if not self.multis:
            return self.vectors(tables)
        shape = self.builder.constant("shape", np.array([-1, len(self.slots), tables.dim]))
        return self.builder.add("Reshape", [self.flat(tables), shape])

    def pooled(self, field: str, tables: Tables) -> str:
        """One field's vector: (rows, d)."""
        slot = next(slot for slot in self.slots if slot.name == field)
        if slot.pooling is not None:
            return self._pooled(slot, tables)
        position = self.builder.constant("column", np.array([self.singles.index(slot)]))
        ids = self.builder.add("Gather", [self._ids(None, offset=False), position], axis=1)
        rows = self.builder.add("Gather", [self.builder.table("table", [tables.values[field]]), ids], axis=0)
        return self.builder.add("Reshape", [rows, self.builder.constant("shape", np.array([-1, tables.dim]))])

    def total(self, tables: Tables) -> str:
        """The sum over fields, multi-valued ones pooled first: (rows, d)."""
        axis = self.builder.constant("axis", np.array([1]))
        if all(tables.pooling[slot.name] == "sum" for slot in self.multis):
            # Pads are zero rows, so a sum of sums is one sum over all columns.
            stack = self.builder.table("table", [tables.values[slot.name] for slot in self.slots])
            ids = self._offset(f"{self.name}_ids", self.slots)
            rows = self.builder.add("Gather", [stack, ids], axis=0)
            if len(self.columns) == 1:
                return self.builder.add("Reshape", [rows, self.builder.constant("shape", np.array([-1, tables.dim]))])
            return self.builder.add("ReduceSum", [rows, axis], keepdims=0)
        parts = [self._pooled(slot, tables) for slot in self.multis]
        if self.singles:
            parts.insert(0, self.builder.add("ReduceSum", [self.vectors(tables), axis], keepdims=0))
        whole = parts[0]
        for part in parts[1:]:
            whole = self.builder.add("Add", [whole, part])
        return whole

    def vectors(self, tables: Tables) -> str:
        """Vectors of the single-valued fields: (rows, F, d)."""
        stack = self.builder.table("table", [tables.values[slot.name] for slot in self.singles])
        return self.builder.add("Gather", [stack, self._ids(None)], axis=0)

    def _pooled(self, slot: FieldSlot, tables: Tables) -> str:
        ids = self._ids(slot)
        axis = self.builder.constant("axis", np.array([1]))
        table = self.builder.table("table", [tables.values[slot.name]])
        total = self.builder.add("ReduceSum", [self.builder.add("Gather", [table, ids], axis=0), axis], keepdims=0)
        return total if tables.pooling[slot.name] == "sum" else self.builder.add("Div", [total, self._used(slot, ids)])

    def _used(self, slot: FieldSlot, ids: str) -> str:
        """Columns of a multi-valued field that are no pads, at least one: (rows, 1)."""
        key = f"used {slot.name}"
        if key not in self._pieces:
            add, constant = self.builder.add, self.builder.constant
            pad = constant("pad", np.array(slot.pad_id, np.int32))
            used = add("Cast", [add("Not", [add("Equal", [ids, pad])])], to=TensorProto.FLOAT)
            count = add("ReduceSum", [used, constant("axis", np.array([1]))], keepdims=1)
            self._pieces[key] = add("Clip", [count, constant("one", np.array(1.0, np.float32))])
        return self._pieces[key]

    def _ids(self, slot: FieldSlot | None, *, offset: bool = True) -> str:
        """Columns of a multi-valued field, or of all single-valued ones with the starts of their tables added."""
        if not self._pieces:
            pieces = [self.singles] * bool(self.singles) + [[multi] for multi in self.multis]
            names = [f"{self.name}_ids"]
            if len(pieces) > 1:
                sizes = np.array([sum(one.width for one in piece) for piece in pieces])
                split = self.builder.constant("split", sizes)
                outputs = [f"{self.name}_ids_{number}" for number in range(len(pieces))]
                names = self.builder.add_many("Split", [f"{self.name}_ids", split], outputs, axis=1)
            self._pieces = {
                "" if piece is self.singles else piece[0].name: name for piece, name in zip(pieces, names, strict=True)
            }
            if self.singles:
                self._pieces["raw"] = self._pieces[""]
                self._pieces[""] = self._offset(self._pieces[""], self.singles)
        return self._pieces[slot.name if slot else "" if offset else "raw"]

    def _offset(self, ids: str, slots: Sequence[FieldSlot]) -> str:
        starts = np.cumsum([0, *(slot.rows for slot in slots[:-1])])
        offsets = np.repeat(starts, [slot.width for slot in slots]).astype(np.int32)
        return self.builder.add("Add", [ids, self.builder.constant("offset", offsets)]) if offsets.any() else ids


class Lookups:
    """Both sides of a baseline's graph.

    Args:
        slots: The fields, in the order in which the model has them side by side.

    Attributes:
        builder: Where nodes go.
        context: The side that is read once a request.
        candidate: The side that is read once a row.
    """

    def __init__(self, slots: Sequence[FieldSlot]) -> None:
        self.slots = tuple(slots)
        self.builder = Builder()
        self.context, self.candidate = (
            Side(self.builder, name, [slot for slot in slots if slot.side == name]) for name in SIDES
        )

    @property
    def sides(self) -> tuple[Side, Side]:
        """Context, then candidate."""
        return self.context, self.candidate

    @property
    def columns(self) -> dict[str, int]:
        """Columns of each input."""
        return {f"{side.name}_ids": len(side.columns) for side in self.sides}

    def places(self, side: Side, dim: int = 1) -> NDArray[np.int64]:
        """Where the side's values are in the model's own order of fields, `dim` values a field."""
        names = [slot.name for slot in self.slots]
        first = np.array([names.index(field) for field in side.fields]) * dim
        return np.asarray(first[:, None] + np.arange(dim)).ravel()
