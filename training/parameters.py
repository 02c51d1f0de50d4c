"""How many parameters a run saves: two plain towers over all fields against the one tower that is served."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from training.field_selection.allocation import default_dimension
from training.models.files import read_document, read_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from training.runs import Run

TOWERS = 2
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class InferenceParameters:
    """What is stored of a model that is served. Every figure about the size of a served model is one of these.

    Attributes:
        embedding: numbers in tables as they are stored: folded ones at the first layer's width, padded ones with their
            zeros.
        dense: numbers in projections that remain, layers and biases.
        bytes: of both, as they are stored.
    """

    embedding: int
    dense: int
    bytes: int

    @property
    def total(self) -> int:
        """All parameters."""
        return self.embedding + self.dense


@dataclass(frozen=True)
class StoredTable:
    """A field's table as a served model stores it.

    Attributes:
        rows: V_f, its number of ids.
        dim: columns; K where it is folded.
        folded: whether it holds what the projection would have made of it, so that none is stored.
    """

    rows: int
    dim: int
    folded: bool = False


def inference_parameters(
    tables: Iterable[StoredTable], widths: Sequence[int], *, first_bias: bool = True, squares: int
) -> InferenceParameters:
    """Count the parameters of one merged tower in float32.

    Args:
        tables: of the fields that are read.
        widths: of its hidden layers; the first is K.
        first_bias: whether the first layer's bias is stored, and not within a folded table.
        squares: weights of the squares that the logit reads.
    """
    tables = list(tables)
    embedding = sum(table.rows * table.dim for table in tables)
    projections = sum(table.dim * widths[0] for table in tables if not table.folded)
    dense = projections + _served_layers(widths, squares) - (0 if first_bias else widths[0])
    return InferenceParameters(embedding, dense, FLOAT32_BYTES * (embedding + dense))


@dataclass(frozen=True)
class FieldParameters:
    """A field's embedding parameters.

    Attributes:
        name: of the field.
        rows: V_f, its number of ids.
        before_dim: columns of each of the two towers' tables.
        after_dim: columns of the served table; 0 where none is served.
        fate: "kept", "dropped", or "constant" (training only: served as a constant in the bias).
    """

    name: str
    rows: int
    before_dim: int
    after_dim: int
    fate: str

    @property
    def before(self) -> int:
        """Parameters of both towers' tables."""
        return TOWERS * self.rows * self.before_dim

    @property
    def after(self) -> int:
        """Parameters of the served table."""
        return self.rows * self.after_dim


@dataclass(frozen=True)
class ParameterTable:
    """Parameters by part, before and after.

    Attributes:
        fields: every field of the data.
        projections: parameters that project embeddings into the first layer (before, after).
        dense: the layers behind it, batch norms and biases included (before, after).
        merged: the merged tower, before the exporter folds tables and stores equal rows once.
    """

    fields: tuple[FieldParameters, ...]
    projections: tuple[int, int]
    dense: tuple[int, int]
    merged: InferenceParameters

    @property
    def dropped(self) -> tuple[FieldParameters, ...]:
        """Fields that the model does not read."""
        return tuple(field for field in self.fields if field.fate == "dropped")

    @property
    def before(self) -> int:
        """All parameters of two towers without AFE."""
        return sum(field.before for field in self.fields) + self.projections[0] + self.dense[0]

    @property
    def after(self) -> int:
        """All parameters of the merged tower, before the exporter folds tables and stores equal rows once."""
        return self.merged.total

    def parts(self) -> list[tuple[str, int, int]]:
        """(name, before, after), the total last."""
        tables = (sum(field.before for field in self.fields), sum(field.after for field in self.fields))
        return [
            ("Embedding tables", *tables),
            ("Projections of the fields", *self.projections),
            ("Dense layers", *self.dense),
            ("Total", self.before, self.after),
        ]


def count_parameters(run: Run) -> ParameterTable:
    """Count from a run's files.

    *Before* is the pair that would have been trained without AFE: two towers with tables of their own, every field in
    the data's mean dimension. *After* is the fusion form merged into one tower: one table a kept field in its own
    dimension, one projection, one tower's layers with batch norm folded in.
    """
    document = read_document(run.path)
    weights = read_weights(run.path / "weights.safetensors")
    gates = [weights[f"branches.{b}.gates"].tolist() for b in range(TOWERS)]
    squared = any(bool(weights[f"branches.{b}.quadratic"].any()) for b in range(TOWERS))
    slots = {
        slot.name: slot
        for slot, open_in in zip(document.slots, zip(*gates, strict=True), strict=True)
        if any(open_in)  # a gate that closed in both branches takes the field with it
    }
    rows = {field.name: len(run.encoder.vocabulary(field.name)) for field in run.encoder.fields}
    mean = run.config.afe.mean_dimension or default_dimension(run.data_info["rows"]["train"], sum(rows.values()))
    fields = []
    for name, size in rows.items():
        slot = slots.get(name)
        fate = "dropped" if slot is None else "kept" if slot.serving_constant_id is None else "constant"
        after = slot.dim if slot is not None and fate == "kept" else 0
        fields.append(FieldParameters(name, size, mean, after, fate))
    K = document.widths[0]
    squares = K if squared else 0
    merged = inference_parameters(
        [StoredTable(field.rows, field.after_dim) for field in fields if field.fate == "kept"],
        document.widths,
        squares=squares,
    )
    served_layers = _served_layers(document.widths, squares)
    return ParameterTable(
        fields=tuple(fields),
        projections=(TOWERS * len(fields) * mean * K, merged.dense - served_layers),
        dense=(TOWERS * _training_layers(document.widths), served_layers),
        merged=merged,
    )


def _training_layers(widths: Sequence[int]) -> int:
    """A tower's parameters behind its projections: batch norms (two each), layers, squares, output."""
    layers = sum(H * G + G for H, G in pairwise(widths))
    return 2 * sum(widths) + layers + widths[0] + widths[-1] + 1


def _served_layers(widths: Sequence[int], squares: int) -> int:
    """The merged tower's: the first layer's bias, layers, weights of the squares, output."""
    return widths[0] + squares + sum(H * G + G for H, G in pairwise(widths)) + widths[-1] + 1
