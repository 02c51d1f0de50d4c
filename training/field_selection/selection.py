"""What AFE decided, and how it decides: which fields are noise, which are copies, how sure the rest is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import e, log
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import TypeAdapter

from training.field_selection.information import adjusted_p_values

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from training.field_selection.measures import Measures


FEW_ROWS: Final = 500
"""With fewer rows, saying nothing surely is no sign of having nothing to say: only constants are noise."""


@dataclass(frozen=True)
class Evidence:
    """Why a field was kept or dropped.

    Attributes:
        information_bits: about the label, alone, corrected for chance.
        p_value: of that for noise, adjusted for the number of fields (Holm).
        partner: the field beyond which it says most surely something.
        pair_bits: what it says beyond the partner, corrected.
        pair_p_value: of that for noise, adjusted for the number of ordered pairs (Holm).
        joint_bits: what a field that says nothing alone says beyond all that do.
        joint_p_value: of that for noise, adjusted for the number of fields (Holm).
        rank: place in the greedy order by conditional relevance, from 1.
        level_p_value: of a field that names large groups, for groups without a level of their own, adjusted likewise.
    """

    information_bits: float
    p_value: float
    partner: str | None
    pair_bits: float
    pair_p_value: float
    joint_bits: float
    joint_p_value: float
    rank: int
    level_p_value: float = 1.0

    @property
    def least_p_value(self) -> float:
        """The most convincing of all."""
        return min(self.p_value, self.pair_p_value, self.joint_p_value, self.level_p_value)

    @property
    def most_bits(self) -> float:
        """The most that the field says, one way or another."""
        return max(self.information_bits, self.pair_bits, self.joint_bits)


@dataclass(frozen=True)
class Selection:
    """What AFE decided.

    Attributes:
        kept: names, in the order of the slots.
        dropped: name -> reason, for people.
        noise: names dropped as noise.
        copies: name dropped as a copy -> the kept field it copies.
        interactions: pairs kept though one of them (or both) says nothing alone.
        gate_prior: kept name -> log-odds that the field matters.
        dims: kept name -> dimension.
        evidence: name -> why; all fields.
    """

    kept: tuple[str, ...]
    dropped: dict[str, str]
    noise: tuple[str, ...]
    copies: dict[str, str]
    interactions: tuple[tuple[str, str], ...]
    gate_prior: dict[str, float]
    dims: dict[str, int]
    evidence: dict[str, Evidence]

    def as_json(self) -> dict[str, Any]:
        """For `afe.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: object) -> Selection:
        """Read what `as_json` gave.

        Raises:
            pydantic.ValidationError: It is something else.
        """
        return TypeAdapter(cls).validate_python(content)


def weigh(measures: Measures) -> dict[str, Evidence]:
    """The evidence about every field: alone, and beyond the field that leaves it most."""
    alone, pairs = _adjusted(measures)
    joint = adjusted_p_values([field.joint_p_value for field in measures.fields])
    level = adjusted_p_values([field.level_p_value for field in measures.fields])
    bits = np.array(measures.conditional_bits)
    rank = {name: place for place, name in enumerate(measures.order, 1)}
    evidence = {}
    for index, field in enumerate(measures.fields):
        others = [g for g in range(len(measures.fields)) if g != index]
        # Many p-values are 0 in floating point: then the partner beyond which it says most.
        best = min(others, key=lambda g: (pairs[index, g], -bits[index, g]), default=None)
        evidence[field.name] = Evidence(
            information_bits=field.information_bits,
            p_value=float(alone[index]),
            partner=None if best is None else measures.names[best],
            pair_bits=0.0 if best is None else float(bits[index, best]),
            pair_p_value=1.0 if best is None else float(pairs[index, best]),
            joint_bits=field.joint_bits,
            joint_p_value=float(joint[index]),
            rank=rank[field.name],
            level_p_value=float(level[index]),
        )
    return evidence


def _adjusted(measures: Measures) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """P-values alone (F,) and of ordered pairs (F, F), each adjusted for their number; 1 on the diagonal."""
    pairs = np.array(measures.conditional_p)
    off = ~np.eye(len(measures.fields), dtype=bool)
    pairs[off] = adjusted_p_values(pairs[off])
    return adjusted_p_values([field.p_value for field in measures.fields]), pairs


def find_noise(
    measures: Measures, evidence: Mapping[str, Evidence], *, alpha: float, keep: Collection[str]
) -> dict[str, str]:
    """Fields that say nothing, alone, beyond any other or beyond all -> the reason. At least one field is left."""
    noise = {}
    for field in measures.fields:
        found = evidence[field.name]
        if field.name in keep or found.least_p_value < alpha:
            continue
        if field.seen <= 1:
            noise[field.name] = "noise: one value only"
            continue
        if measures.rows < FEW_ROWS:
            continue
        noise[field.name] = (
            f"noise: {found.information_bits:.5f} bits alone (p = {found.p_value:.2g}), "
            f"{found.pair_bits:.5f} beyond {found.partner or 'nothing'} (p = {found.pair_p_value:.2g}), "
            f"{found.joint_bits:.5f} beyond all (p = {found.joint_p_value:.2g})"
        )
    if len(noise) == len(measures.fields):
        noise.pop(min(noise, key=lambda name: (evidence[name].least_p_value, -evidence[name].information_bits)))
    return noise


def find_copies(
    measures: Measures, evidence: Mapping[str, Evidence], *, redundancy: float, alpha: float, keep: Collection[str]
) -> dict[str, tuple[str, float]]:
    """Fields that copy another one, which stays -> that one, and the share of the larger entropy they have in common.

    Of copies that one stays which has most copies (the original of inexact ones), then says most, then has the
    smaller table, then is shared by a request's candidates.

    Args:
        measures: of all fields.
        evidence: of the fields in question.
        redundancy: least share that makes two fields copies.
        alpha: a copy says nothing beyond its original, at this level.
        keep: fields that are no one's copy.
    """
    like: dict[str, dict[str, tuple[float, float]]] = {}  # name -> other -> redundancy, p of name beyond other
    for copy in measures.copies:
        if copy.redundancy >= redundancy:
            like.setdefault(copy.first, {})[copy.second] = (copy.redundancy, copy.first_beyond_second)
            like.setdefault(copy.second, {})[copy.first] = (copy.redundancy, copy.second_beyond_first)
    fields = {field.name: field for field in measures.fields if field.name in evidence}

    def usefulness(name: str) -> tuple[bool, int, float, int, bool, str]:
        field, found = fields[name], evidence[name]
        # What it says alone, if it does; rounded, so that exact copies tie.
        bits = round(found.information_bits if found.p_value < alpha else found.pair_bits, 9)
        return name not in keep, -len(like.get(name, {})), -bits, field.rows, field.side != "context", name

    kept: list[str] = []
    copies: dict[str, tuple[str, float]] = {}
    for name in sorted(fields, key=usefulness):
        originals = [other for other in kept if like.get(name, {}).get(other, (0.0, 0.0))[1] >= alpha]
        if originals and name not in keep:
            best = max(originals, key=lambda other: like[name][other][0])
            copies[name] = (best, like[name][best][0])
        else:
            kept.append(name)
    return copies


def find_interactions(measures: Measures, kept: Collection[str], *, alpha: float) -> tuple[tuple[str, str], ...]:
    """Pairs of kept fields that each say something beyond the other, where one of them alone says nothing."""
    alone, pairs = _adjusted(measures)
    index = [place for place, name in enumerate(measures.names) if name in kept]
    return tuple(
        (measures.names[i], measures.names[j])
        for place, i in enumerate(index)
        for j in index[place + 1 :]
        if max(alone[i], alone[j]) >= alpha and max(pairs[i, j], pairs[j, i]) < alpha
    )


def prior_log_odds(found: Evidence) -> float:
    """Log-odds that a field matters, from even odds: -ln(-e p ln p), whose argument bounds noise's Bayes factor.

    Within [-2, 4], so that a gate can still change its mind.

    Source: Sellke, Bayarri, Berger, "Calibration of p values for testing precise null hypotheses", The American
    Statistician 55 (2001).
    """
    p = max(found.least_p_value, 1e-300)
    if p >= 1.0 / e:
        return -2.0 * (p - 1.0 / e)
    return min(max(-log(-e * p * log(p)), -2.0), 4.0)
