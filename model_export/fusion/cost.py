"""What a call of the graph costs, so that folding and padding can be chosen by measurement and not by belief.

Folding saves a field's matrix product and makes its rows H_0 wide: more bytes to read, and to add up. Padding a table
to a neighbour's d saves a look-up's nodes and makes rows and product wider. Which is cheaper depends on the machine
and on the number of rows. The model is linear in counts that can be read off the graph (`counts.py`):

    microseconds = call + sum over the parts of a call, each with its own rows, of
                   node * nodes + weight * FLOPs
                   + rows * (walk * nodes + look-ups * (lookup + miss * doublings) + cache lines * line * doublings
                             + sum * look-ups summed up + add * bytes added up or copied + flop * FLOPs)

where doublings = log2(bytes of a field's table / its share of the cache), if positive.

`python -m model_export.measure` fits the prices to timed graphs and prints them beside the error of the fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from model_export.fusion.counts import count_call

if TYPE_CHECKING:
    from pathlib import Path

    from model_export.fusion.counts import Counts
    from model_export.fusion.tower import FusedTower, Side

Price: TypeAlias = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Size: TypeAlias = Annotated[int, Field(ge=0)]

PRICES: Final = (
    "call_us",
    "node_us",
    "walk_ns",
    "weight_ns",
    "lookup_ns",
    "miss_ns",
    "line_ns",
    "sum_ns",
    "add_ns",
    "flop_ns",
)
"""What is measured, in the order of `terms`."""


class CostModelError(ValueError):
    """A file of prices that cannot be read; the message says which key."""


@dataclass(frozen=True)
class CostModel:
    """Prices, and the requests that a choice is made for.

    Attributes:
        call_us: Microseconds a call, whatever the graph.
        node_us: Microseconds a graph node.
        walk_ns: Nanoseconds a graph node and a row: every node walks its rows.
        weight_ns: Nanoseconds a FLOP a row, once a call: its weights are read whatever the number of rows.
        lookup_ns: Nanoseconds a gathered row, whatever its width.
        miss_ns: Nanoseconds more a gathered row for each doubling of its table beyond its share of the cache: caches of
            several levels and page tables make a ramp of it. Ids are taken to be read evenly.
        line_ns: The same a gathered cache line.
        sum_ns: Nanoseconds a gathered row that is summed up, whatever its width.
        add_ns: Nanoseconds a byte that is added up or copied.
        flop_ns: Nanoseconds a multiplication or addition in a matrix product.
        cache_bytes: Of a side's tables that stay in cache, an equal share a look-up.
        few_rows: Candidates of the smaller request that the choice is made for; the context is one row in both.
        many_rows: Candidates of the larger request.
        many_weight: What a microsecond of the larger request weighs, the smaller one's being 1. A judgement: the whole
            of a request of 100 candidates costs about four times that of one, so it is a quarter of the share.
        growth_us: Microseconds that a MiB of larger tables has to save. A judgement, not a measurement: folding
            multiplies parameters, which cost cache, memory, and time to ship.
        margin: The least share of a side's time that folding or padding must save. It is less than the error of this
            model, of which most is common to all choices.
        largest_folded_bytes: No table is folded or padded to more than this: bundles and memory grow with it, and a
            table of millions of rows is out of cache either way.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    call_us: Price = 2.2
    node_us: Price = 0.4
    walk_ns: Price = 2.6
    weight_ns: Price = 0.017
    lookup_ns: Price = 4.6
    miss_ns: Price = 3.5
    line_ns: Price = 0.69
    sum_ns: Price = 1.8
    add_ns: Price = 0.045
    flop_ns: Price = 0.0063
    cache_bytes: Size = 1 << 19
    few_rows: Size = 1
    many_rows: Size = 100
    many_weight: Price = 0.25
    growth_us: Price = 0.05
    margin: Price = 0.03
    largest_folded_bytes: Size = 64 << 20

    def terms(self, counts: Counts, rows: int) -> tuple[float, ...]:
        """What `PRICES` but the first are multiplied by to give a part's microseconds."""
        misses, lines = self._misses(counts)
        once = (counts.nodes, 1e-3 * rows * counts.nodes, 1e-3 * counts.flops)
        row = (counts.lookups, misses, lines, counts.summed, counts.add, counts.flops)
        return (*once, *(1e-3 * rows * term for term in row))

    def _misses(self, counts: Counts) -> tuple[float, float]:
        """Look-ups and cache lines of a row, each times the doublings of its table beyond its share of the cache.

        A row of a small table is read often and stays in cache, however large other fields' tables are.
        """
        misses = lines = 0.0
        share = max(1.0, self.cache_bytes / max(1, counts.lookups))
        for columns, each, size in counts.gathers:
            if size > share * columns:
                missed = columns * log2(size / (share * columns))
                misses, lines = misses + missed, lines + missed * each
        return misses, lines

    def microseconds(self, counts: Counts, rows: int) -> float:
        """Time a part of a call for `rows` rows of it."""
        prices: tuple[float, ...] = tuple(getattr(self, name) for name in PRICES[1:])
        return sum(price * term for price, term in zip(prices, self.terms(counts, rows), strict=True))

    def call(self, tower: FusedTower, rows: int) -> float:
        """Time a call with one context and `rows` candidates."""
        return self.call_us + sum(self.microseconds(counts, number) for counts, number in count_call(tower, rows))

    def weighed(self, counts: Counts, side: Side) -> float:
        """Time one side at the weighed requests."""
        few, many = (1, 1) if side == "context" else (self.few_rows, self.many_rows)
        both = self.microseconds(counts, few) + self.many_weight * self.microseconds(counts, many)
        return both / (1.0 + self.many_weight)

    def price(self, counts: Counts, kept: Counts, side: Side) -> float:
        """Price one side, growth of its tables over those of all fields kept included."""
        return self.weighed(counts, side) + self.growth_us * max(0, counts.table - kept.table) / 2**20


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
