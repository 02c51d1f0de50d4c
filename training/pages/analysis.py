"""What AFE measured and decided, as rows for people: the report draws them, `analyze` prints them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from training.field_selection.measures import Measures
    from training.field_selection.selection import Selection

Fate = Literal["kept", "kept for a pair", "kept beyond the rest", "kept for its groups", "kept by choice", "dropped"]


@dataclass(frozen=True)
class FieldRow:
    """One field.

    Attributes:
        name, side: of the field.
        ids: V_f.
        millibits: I(X; Y), corrected for chance.
        noise_millibits: what noise of the same counts has on average: the correction.
        low_millibits, high_millibits: 95% interval of `millibits`; None in runs that did not measure it.
        p_value: for noise, adjusted for the number of fields.
        beyond, beyond_millibits: for a field that says nothing alone: beyond what it says something, and how much.
        dimension: allocated; 0 where it was dropped.
        fate: only "kept" says something significant alone; "kept by choice" says nothing significant at all.
        reason: why it was dropped, else "".
    """

    name: str
    side: str
    ids: int
    millibits: float
    noise_millibits: float
    low_millibits: float | None
    high_millibits: float | None
    p_value: float
    beyond: str
    beyond_millibits: float
    dimension: int
    fate: Fate
    reason: str

    @property
    def shown_millibits(self) -> float:
        """What it was kept for: its own information, or what it says beyond other fields."""
        return self.beyond_millibits if self.beyond else self.millibits


@dataclass(frozen=True)
class PairRow:
    """Two fields that say something only together.

    Attributes:
        first, second: their names.
        alone_millibits: what the better of the two says.
        gain_millibits: what both together say beyond it (interaction information).
        p_value: the larger of both directions'; not adjusted.
    """

    first: str
    second: str
    alone_millibits: float
    gain_millibits: float
    p_value: float


@dataclass(frozen=True)
class GroupRow:
    """Fields that say the same: the one that was kept, and its copies with what they share of its entropy."""

    kept: str
    copies: tuple[tuple[str, float], ...]


def field_rows(measures: Measures, selection: Selection, alpha: float) -> list[FieldRow]:
    """All fields, the most informative first."""
    rows = []
    for field in measures.fields:
        evidence = selection.evidence[field.name]
        dropped = selection.dropped.get(field.name)
        fate: Fate
        beyond, bits = "", 0.0
        if dropped is not None:
            fate = "dropped"
        elif evidence.p_value < alpha:
            fate = "kept"
        elif evidence.pair_p_value < alpha and evidence.partner is not None:
            fate, beyond, bits = "kept for a pair", evidence.partner, evidence.pair_bits
        elif evidence.joint_p_value < alpha:
            fate, beyond, bits = "kept beyond the rest", "all that inform alone", evidence.joint_bits
        elif evidence.level_p_value < alpha:
            fate = "kept for its groups"
        else:
            fate = "kept by choice"
        rows.append(
            FieldRow(
                name=field.name,
                side=field.side,
                ids=field.rows,
                millibits=1000 * field.information_bits,
                noise_millibits=1000 * field.noise_bits,
                low_millibits=None if field.low_bits is None else 1000 * field.low_bits,
                high_millibits=None if field.high_bits is None else 1000 * field.high_bits,
                p_value=evidence.p_value,
                beyond=beyond,
                beyond_millibits=1000 * bits,
                dimension=selection.dims.get(field.name, 0),
                fate=fate,
                reason=dropped or "",
            )
        )
    return sorted(rows, key=lambda row: (-row.shown_millibits, row.name))


def interval_text(row: FieldRow) -> str:
    """A field's interval for people, in millibits; nothing where it was not measured."""
    if row.low_millibits is None or row.high_millibits is None:
        return ""
    return f"{row.low_millibits:.2f} to {row.high_millibits:.2f}".replace("-", "\N{MINUS SIGN}")


def pair_rows(measures: Measures, selection: Selection) -> list[PairRow]:
    """Pairs found by screening, the strongest first."""
    place = {name: index for index, name in enumerate(measures.names)}
    rows = []
    for first, second in selection.interactions:
        i, j = place[first], place[second]
        rows.append(
            PairRow(
                first=first,
                second=second,
                alone_millibits=1000 * max(measures.fields[i].information_bits, measures.fields[j].information_bits),
                gain_millibits=1000 * min(measures.conditional_bits[i][j], measures.conditional_bits[j][i]),
                p_value=max(measures.conditional_p[i][j], measures.conditional_p[j][i]),
            )
        )
    return sorted(rows, key=lambda row: -row.gain_millibits)


def group_rows(measures: Measures, selection: Selection) -> list[GroupRow]:
    """Groups of copies."""
    place = {name: index for index, name in enumerate(measures.names)}
    groups: dict[str, list[tuple[str, float]]] = {}
    for copy, original in selection.copies.items():
        share = measures.redundancy_max[place[copy]][place[original]]
        groups.setdefault(original, []).append((copy, share))
    return [GroupRow(kept, tuple(copies)) for kept, copies in groups.items()]


def p_text(p_value: float) -> str:
    """A p-value for people."""
    return "< 1e-6" if p_value < 1e-6 else f"{p_value:.2g}"  # noqa: PLR2004 - smaller ones say no more
