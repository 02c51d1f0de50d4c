"""What AFE measured: plain records that go to `afe.json` and come back.

Information is in bits, corrected for chance: 0 on average where there is none, so small negative numbers are normal.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter


@dataclass(frozen=True)
class FieldMeasure:
    """One field alone.

    Attributes:
        name, side: of the field.
        rows: its number of ids, V_f.
        seen: different values (or sets of values) among the rows measured.
        entropy_bits: H(X).
        plug_in_bits: I(X; Y) straight from the counts: biased upwards.
        noise_bits: what noise of the same counts has on average.
        information_bits: the difference: I(X; Y), corrected.
        spread_bits: standard deviation of the estimate for noise.
        p_value: of an estimate this high, for noise.
        clustered: tested between clusters of rows (requests), not between rows.
        joint_bits: of a field that says nothing alone, what it says beyond an additive model of all that do, corrected;
            0 for the others.
        joint_p_value: of that for noise; 1 for the others.
        level_p_value: of a field that names clusters of many rows (users), for clusters without a level of their own.
            It says nothing about new ones, but what it absorbs would blur the others' effects. 1 for other fields.
        low_bits, high_bits: 95% interval of `information_bits`; None in runs that did not measure it.
        miller_madow_bits: I(X; Y) with the first-order correction instead, for comparison: wrong for rare values.
    """

    name: str
    side: str
    rows: int
    seen: int
    entropy_bits: float
    plug_in_bits: float
    noise_bits: float
    information_bits: float
    spread_bits: float
    p_value: float
    clustered: bool
    joint_bits: float = 0.0
    joint_p_value: float = 1.0
    level_p_value: float = 1.0
    low_bits: float | None = None
    high_bits: float | None = None
    miller_madow_bits: float | None = None


@dataclass(frozen=True)
class Interaction:
    """How two fields work together, on exact values; see `interactions` for the sign and for what is estimated.

    Attributes:
        first, second: their names.
        both_bits: I(X_f, X_g; Y), corrected.
        beyond_better_bits: what both say beyond the better of the two.
        interaction_bits: I(X_f, X_g; Y) - I(X_f; Y) - I(X_g; Y): above 0 synergy, below 0 redundancy about the label.
        low_bits, high_bits: its 95% interval.
        p_value: two-sided, of an interaction of 0, adjusted for the number of pairs.
    """

    first: str
    second: str
    both_bits: float
    beyond_better_bits: float
    interaction_bits: float
    low_bits: float
    high_bits: float
    p_value: float


@dataclass(frozen=True)
class Copy:
    """Two fields that say nearly the same, on exact values.

    Attributes:
        first, second: their names.
        redundancy: what they share of the larger entropy, adjusted for chance: 1 for exact copies.
        first_beyond_second, second_beyond_first: p-values of one saying more about the label than the other.
    """

    first: str
    second: str
    redundancy: float
    first_beyond_second: float
    second_beyond_first: float


@dataclass(frozen=True)
class Measures:
    """All that AFE measured. Matrices are F x F, in the order of `fields`.

    Attributes:
        rows: training rows.
        sampled_rows: rows that pairs were measured on.
        base_rate: share of label 1.
        fields: each field alone.
        conditional_bits: I(X_row; Y | X_column), corrected; the smaller of both directions is the interaction
            information I(X_a, X_b; Y) - max(I(X_a; Y), I(X_b; Y)). 0 on the diagonal.
        conditional_p: its p-values if the row's field says nothing beyond the column's; 1 on the diagonal.
        redundancy_min: what two fields share of the smaller entropy, adjusted for chance (1: a function of the other).
        redundancy_max: the same of the larger entropy (1: copies).
        copies: pairs of fields that share nearly all of the larger entropy.
        order: names by greedy conditional relevance (CMIM).
        gains_bits: what each adds in that order.
        resolved: share of what the row's field may say beyond the column's that the rows suffice to show, in [0, 1]:
            `conditional_bits` over it estimates all of that; none in older runs.
        interactions: the pairs of most synergy and of most redundancy about the label; none in older runs.
    """

    rows: int
    sampled_rows: int
    base_rate: float
    fields: tuple[FieldMeasure, ...]
    conditional_bits: tuple[tuple[float, ...], ...]
    conditional_p: tuple[tuple[float, ...], ...]
    redundancy_min: tuple[tuple[float, ...], ...]
    redundancy_max: tuple[tuple[float, ...], ...]
    copies: tuple[Copy, ...]
    order: tuple[str, ...]
    gains_bits: tuple[float, ...]
    resolved: tuple[tuple[float, ...], ...] = ()
    interactions: tuple[Interaction, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The fields' names."""
        return tuple(field.name for field in self.fields)

    def as_json(self) -> dict[str, Any]:
        """For `afe.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: object) -> Measures:
        """Read what `as_json` gave.

        Raises:
            pydantic.ValidationError: It is something else.
        """
        return TypeAdapter(cls).validate_python(content)
