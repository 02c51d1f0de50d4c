"""What a side's look-ups cost, so that folding can be chosen by measurement and not by belief.

Folding saves a field's matrix product and makes its rows H_0 wide: more bytes to read, and to add up. Which of the
two is cheaper depends on the machine; on CPUs with wide vector units a product over d_f = 4 or 8 is far cheaper than
reading and adding up 64 columns. The model is linear in counts that can be read off the graph:

    microseconds = node * nodes + rows * (lookup * look-ups + read * bytes gathered (+ miss where out of cache)
                                          + sum * look-ups summed up + add * bytes summed up or copied
                                          + flop * FLOPs of products)

`python -m model_export.measure` fits the prices to timed graphs and prints them beside the error of the fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from model_export.fusion.layout import pieces

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from model_export.fusion.tower import FusedField, Side

BYTES: Final = 4  # float32
MEAN_NODES: Final = 6  # compare, negate, cast, count, clamp, divide


Price: TypeAlias = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Size: TypeAlias = Annotated[int, Field(ge=0)]


class CostModelError(ValueError):
    """A file of prices that cannot be read; the message says which key."""


@dataclass(frozen=True)
class Counts:
    """What one side's look-ups do.

    Attributes:
        nodes: Graph nodes a call.
        lookups: Rows gathered, a row of the id matrix.
        read: Bytes gathered, a row.
        summed: Gathered rows that are summed up, a row.
        add: Bytes summed up or copied, a row.
        flops: Multiplications and additions of matrix products, a row.
        table: Bytes of all tables.
    """

    nodes: int
    lookups: int
    read: int
    summed: int
    add: int
    flops: int
    table: int


@dataclass(frozen=True)
class CostModel:
    """Prices, and the number of rows they are weighed at.

    Attributes:
        node_us: Microseconds a graph node.
        lookup_ns: Nanoseconds a gathered row, whatever its width.
        read_ns: Nanoseconds a gathered byte, in cache.
        miss_ns: Nanoseconds more a gathered byte that is not in cache.
        sum_ns: Nanoseconds a gathered row that is summed up, whatever its width.
        add_ns: Nanoseconds a byte that is summed up or copied.
        flop_ns: Nanoseconds a multiplication or addition in a matrix product.
        cache_bytes: What of the tables stays in cache; beyond it, rows are taken to be read evenly.
        context_rows: Rows of the context side in the request that the choice is made for.
        candidate_rows: Rows of the candidate side.
        growth_us: Microseconds that a MiB of larger tables has to save. A judgement, not a measurement: folding
            multiplies parameters, which cost cache, memory in every worker, and time to ship.
        margin: The least share of a side's time that folding must save: about the error of this model.
        largest_folded_bytes: No table is folded to more than this: bundles and workers' memory grow with it, and a
            table of millions of rows is out of cache either way.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    node_us: Price = 0.35
    lookup_ns: Price = 4.5
    read_ns: Price = 0.0
    miss_ns: Price = 0.1
    sum_ns: Price = 2.7
    add_ns: Price = 0.04
    flop_ns: Price = 0.007
    cache_bytes: Size = 1 << 20
    context_rows: Size = 1
    candidate_rows: Size = 100
    growth_us: Price = 20.0
    margin: Price = 0.1
    largest_folded_bytes: Size = 64 << 20

    def rows(self, side: Side) -> int:
        """Rows of a side's id matrix in the request that the choice is made for."""
        return self.context_rows if side == "context" else self.candidate_rows

    def price(self, counts: Counts, kept: Counts, rows: int) -> float:
        """Price a side's look-ups, and the bytes by which its tables grew over those of all fields kept."""
        grown = max(0, counts.table - kept.table) / 2**20
        return self.microseconds(counts, rows) + self.growth_us * grown

    def microseconds(self, counts: Counts, rows: int) -> float:
        """Time a side's look-ups for `rows` rows of its id matrix."""
        missed = max(0.0, 1.0 - self.cache_bytes / counts.table) if counts.table else 0.0
        row = (
            self.lookup_ns * counts.lookups
            + (self.read_ns + self.miss_ns * missed) * counts.read
            + self.sum_ns * counts.summed
            + self.add_ns * counts.add
            + self.flop_ns * counts.flops
        )
        return self.node_us * counts.nodes + rows * row * 1e-3


def count(fields: Iterable[FusedField], width: int) -> Counts:
    """Count what looking up one side's fields does, as `to_onnx` builds it.

    Args:
        fields: One side's fields, folded or not.
        width: H_0.
    """
    cut = pieces(fields)
    nodes = lookups = read = summed = add = flops = table = parts = 0
    for piece in cut:
        wide = BYTES * piece.dim * piece.columns
        nodes += 2 + piece.folded + MEAN_NODES * piece.mean
        lookups += piece.columns
        read += wide
        table += BYTES * piece.dim * piece.rows
        if piece.kind != "stack":
            summed += piece.columns
            add += wide
        if not piece.folded:
            parts += 1
            flops += 2 * width * piece.dim * len(piece.fields)
    if parts > 1:
        add += flops // width * BYTES // 2
    offsets = any(len(piece.fields) > 1 for piece in cut)
    nodes += offsets + (len(cut) > 1) + (parts > 1) + (parts > 0)
    return Counts(nodes, lookups, read, summed, add, flops, table)


def write_cost_model(path: Path, cost: CostModel) -> None:
    """Write prices as JSON."""
    path.write_bytes(TypeAdapter(CostModel).dump_json(cost, indent=1) + b"\n")


def read_cost_model(path: Path) -> CostModel:
    """Read prices; what the file leaves out keeps its default.

    Raises:
        CostModelError: The file is missing or no JSON, or a key is unknown or no price.
    """
    try:
        return TypeAdapter(CostModel).validate_json(path.read_bytes())
    except OSError as error:
        raise CostModelError(f"{path}: expected a file of prices, got {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CostModelError(f"{path}: {where}: {first['msg']}, got {first['input']!r}") from error
