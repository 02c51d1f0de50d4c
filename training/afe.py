"""AFE, adaptive feature engineering: measure every field, drop what says nothing, give the rest its dimensions.

1. Measure (`measures`): what each field says about the label alone, beyond every other field, and what fields share.
2. Filter: dropped are *noise* (nothing alone, nothing beyond any other field: so halves of an XOR stay) and *copies*
   (nearly the whole entropy shared with a field that is kept, and nothing about the label beyond it). A field that is
   a function of a finer one is no copy. The chance of keeping any noise at all is `alpha`; what carries measurable
   information stays.
3. Gates (`gates`): priors from the evidence, for the trainer's hard-concrete field gates.
4. Allocate (`allocation`): dimensions by information under one parameter budget.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import e, log
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from training.allocation import allocate, default_dimension
from training.field_views import MeasuredSlot
from training.information import adjusted_p_values
from training.measures import Measures
from training.measures import measure as measure_arrays
from training.models.base import MULTI_VALUED_PAD_ID
from training.screening import LARGEST_TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from service.features import FeatureEncoder
    from training.field_views import SlotLike
    from training.loader import PreparedData

Dimension = Annotated[int, Field(ge=1, le=16)]


class AfeConfig(BaseModel):
    """The `[afe]` section.

    Attributes:
        filter: drop noise and copies; all fields are kept if false.
        allocate: dimensions by information; all fields get the mean dimension if false.
        gates: train field gates, which may close further fields.
        gate_penalty: strength of the gates' penalty: log loss worth all parameters of tables and projections.
        alpha: chance of keeping any noise field, and of keeping any for a pair.
        copy_redundancy: share of the larger entropy from which on two fields may be copies.
        keep: names of fields that are never dropped.
        mean_dimension: of the embedding, over table rows; by the number of rows per value if not given.
        largest_dimension: of any field.
        floor_dimension: least of a kept field; twice that of a field kept for a pair.
        budget: parameters of all tables and projections; as many as the mean dimension for all fields if not given.
        width: units that fields are projected into, for the price of a projection.
        pair_rows: rows that pairs are measured on, at most.
        pair_values: values a side of a pair's table, at most; the rest goes to a hashed tail.
        seed: of the sample and the shuffles.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    filter: bool = True
    allocate: bool = True
    gates: bool = True
    gate_penalty: Annotated[float, Field(ge=0.0)] = 0.01
    alpha: Annotated[float, Field(gt=0.0, lt=1.0)] = 1e-3
    copy_redundancy: Annotated[float, Field(gt=0.9, le=1.0)] = 0.95
    keep: tuple[str, ...] = ()
    mean_dimension: Dimension | None = None
    largest_dimension: Dimension = 16
    floor_dimension: Dimension = 2
    budget: Annotated[int, Field(ge=1)] | None = None
    width: Annotated[int, Field(ge=1)] = 64
    pair_rows: Annotated[int, Field(ge=1000)] = 500_000
    pair_values: Annotated[int, Field(ge=2, le=LARGEST_TABLE)] = LARGEST_TABLE
    seed: int = 0


@dataclass(frozen=True)
class Evidence:
    """Why a field was kept or dropped.

    Attributes:
        information_bits: about the label, alone, corrected for chance.
        p_value: of that for noise, adjusted for the number of fields (Holm).
        partner: the field beyond which it says most surely something.
        pair_bits: what it says beyond the partner, corrected.
        pair_p_value: of that for noise, adjusted for the number of ordered pairs (Holm).
        rank: place in the greedy order by conditional relevance, from 1.
    """

    information_bits: float
    p_value: float
    partner: str | None
    pair_bits: float
    pair_p_value: float
    rank: int


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


def measure(
    context_ids: NDArray[np.int32],
    candidate_ids: NDArray[np.int32],
    label: NDArray[np.uint8],
    slots: Sequence[SlotLike],
    config: AfeConfig | None = None,
    *,
    clusters: NDArray[np.int64] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Measures:
    """Measure the fields of encoded rows; see `measures.measure`."""
    config = AfeConfig() if config is None else config
    return measure_arrays(
        context_ids,
        candidate_ids,
        label,
        slots,
        clusters=clusters,
        pair_rows=config.pair_rows,
        pair_values=config.pair_values,
        seed=config.seed,
        progress=progress,
    )


def measure_prepared(
    data: PreparedData, config: AfeConfig | None = None, progress: Callable[[int, int], None] | None = None
) -> Measures:
    """Measure the training split of prepared data."""
    train, valid = data.split("train"), data.split("valid")
    return measure(
        train.context_ids,
        train.candidate_ids,
        train.label,
        slots_of(data.encoder),
        config,
        clusters=new_groups(train.group, valid.group),
        progress=progress,
    )


def slots_of(encoder: FeatureEncoder) -> tuple[MeasuredSlot, ...]:
    """The encoder's fields as slots, context side first."""
    return tuple(
        MeasuredSlot(
            name=column.name,
            side=side,
            first=column.first,
            width=column.width,
            rows=len(encoder.vocabulary(column.name)),
            pad_id=MULTI_VALUED_PAD_ID if encoder.field(column.name).kind == "multi_valued" else None,
        )
        for side in ("context", "candidate")
        for column in encoder.columns(side)
    )


def new_groups(train: NDArray[np.int64] | None, valid: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """The training rows' groups where most validation rows are of new ones (requests), None otherwise (users).

    What is constant in a group is as many pieces of evidence about *new* groups as there are groups. Where the same
    groups come again, what is learnt about a group is of use, and every row is evidence.
    """
    if train is None or valid is None or not len(valid):
        return None
    known = float(np.isin(np.asarray(valid), np.asarray(train)).mean())
    return np.asarray(train) if known < 0.5 else None  # noqa: PLR2004 - most


def select(measures: Measures, config: AfeConfig | None = None) -> Selection:
    """Decide what to keep, and in how many dimensions.

    Raises:
        ValueError: `keep` names no field, or the budget is too small for the fields that are kept.
    """
    config = AfeConfig() if config is None else config
    unknown = sorted(set(config.keep) - set(measures.names))
    if unknown:
        raise ValueError(f"afe.keep: expected names of fields, got {unknown}; the fields are {list(measures.names)}")
    evidence = _weigh(measures)
    noise = _noise(measures, evidence, config) if config.filter else {}
    copies = _copies(measures, evidence, set(noise), config) if config.filter else {}
    dropped = noise | {
        name: f"copy of {kept}: shares {share:.1%} of the entropy and says nothing beyond it"
        for name, (kept, share) in copies.items()
    }
    kept = tuple(name for name in measures.names if name not in dropped)
    interactions = _interactions(measures, kept, config)
    paired = {name for pair in interactions for name in pair}
    return Selection(
        kept=kept,
        dropped={name: dropped[name] for name in measures.names if name in dropped},
        noise=tuple(name for name in measures.names if name in noise),
        copies={name: original for name, (original, _) in copies.items()},
        interactions=interactions,
        gate_prior={name: _log_odds(evidence[name]) for name in kept},
        dims=_dimensions(measures, kept, paired, evidence, config),
        evidence=evidence,
    )


def _weigh(measures: Measures) -> dict[str, Evidence]:
    F = len(measures.fields)
    alone = adjusted_p_values([field.p_value for field in measures.fields])
    pairs = np.ones((F, F))
    off = ~np.eye(F, dtype=bool)
    pairs[off] = adjusted_p_values(np.array(measures.conditional_p)[off])
    bits = np.array(measures.conditional_bits)
    rank = {name: place for place, name in enumerate(measures.order, 1)}
    evidence = {}
    for index, field in enumerate(measures.fields):
        # Many p-values are 0 in floating point: then the partner that leaves most information.
        others = [g for g in range(F) if g != index]
        best = min(others, key=lambda g: (pairs[index, g], -bits[index, g]), default=None)
        evidence[field.name] = Evidence(
            information_bits=field.information_bits,
            p_value=float(alone[index]),
            partner=None if best is None else measures.names[best],
            pair_bits=0.0 if best is None else float(bits[index, best]),
            pair_p_value=1.0 if best is None else float(pairs[index, best]),
            rank=rank[field.name],
        )
    return evidence


def _noise(measures: Measures, evidence: dict[str, Evidence], config: AfeConfig) -> dict[str, str]:
    """Fields that say nothing, with the reason."""
    noise = {}
    for field in measures.fields:
        found = evidence[field.name]
        if field.name in config.keep or min(found.p_value, found.pair_p_value) < config.alpha:
            continue
        if field.seen <= 1:
            noise[field.name] = "noise: one value only"
        else:
            noise[field.name] = (
                f"noise: {found.information_bits:.5f} bits alone (p = {found.p_value:.2g}), "
                f"{found.pair_bits:.5f} beyond {found.partner} (p = {found.pair_p_value:.2g})"
            )
    if len(noise) == len(measures.fields):  # a model needs a field
        noise.pop(min(noise, key=lambda name: (evidence[name].p_value, -evidence[name].information_bits)))
    return noise


def _usefulness(measures: Measures, name: str, evidence: dict[str, Evidence]) -> tuple[bool, float, int, bool, str]:
    """Order among copies: most information first, then the smaller table, then what a request shares."""
    field = measures.fields[measures.names.index(name)]
    bits = max(evidence[name].information_bits, evidence[name].pair_bits)
    return (False, -round(bits, 9), field.rows, field.side != "context", name)


def _copies(
    measures: Measures, evidence: dict[str, Evidence], noise: set[str], config: AfeConfig
) -> dict[str, tuple[str, float]]:
    """Fields that copy a kept one -> that one, and what they share."""
    like: dict[str, dict[str, tuple[float, float]]] = {}  # name -> other -> redundancy, p of name beyond other
    for copy in measures.copies:
        if copy.redundancy >= config.copy_redundancy:
            like.setdefault(copy.first, {})[copy.second] = (copy.redundancy, copy.first_beyond_second)
            like.setdefault(copy.second, {})[copy.first] = (copy.redundancy, copy.second_beyond_first)
    kept: list[str] = []
    copies: dict[str, tuple[str, float]] = {}
    for name in sorted(
        (name for name in measures.names if name not in noise),
        key=lambda name: (name not in config.keep, *_usefulness(measures, name, evidence)),
    ):
        originals = [other for other in kept if like.get(name, {}).get(other, (0.0, 0.0))[1] >= config.alpha]
        if originals and name not in config.keep:
            best = max(originals, key=lambda other: like[name][other][0])
            copies[name] = (best, like[name][best][0])
        else:
            kept.append(name)
    return copies


def _interactions(measures: Measures, kept: tuple[str, ...], config: AfeConfig) -> tuple[tuple[str, str], ...]:
    """Pairs of kept fields, each beyond the other, that at least one of would not be kept without."""
    F = len(measures.fields)
    off = ~np.eye(F, dtype=bool)
    adjusted = np.ones((F, F))
    adjusted[off] = adjusted_p_values(np.array(measures.conditional_p)[off])
    alone = adjusted_p_values([field.p_value for field in measures.fields])
    index = {name: place for place, name in enumerate(measures.names)}
    pairs = []
    for place, first in enumerate(kept):
        for second in kept[place + 1 :]:
            i, j = index[first], index[second]
            weak = [row for row, column in ((i, j), (j, i)) if alone[row] >= config.alpha]
            if weak and max(adjusted[i, j], adjusted[j, i]) < config.alpha:
                pairs.append((first, second))
    return tuple(pairs)


def _log_odds(found: Evidence) -> float:
    """Log-odds that a field matters: minus the log of -e p ln p, the least Bayes factor of noise at this p-value.

    Source: Sellke, Bayarri, Berger, "Calibration of p values for testing precise null hypotheses", American
    Statistician 55 (2001). From even odds; within [-2, 4], so that a gate can still change its mind.
    """
    p = max(min(found.p_value, found.pair_p_value), 1e-300)
    return float(np.clip(-log(-e * p * log(p)), -2.0, 4.0)) if p < 1.0 / e else -2.0 * (p - 1.0 / e)


def _dimensions(
    measures: Measures,
    kept: tuple[str, ...],
    paired: set[str],
    evidence: dict[str, Evidence],
    config: AfeConfig,
) -> dict[str, int]:
    rows = {field.name: field.rows for field in measures.fields if field.name in set(kept)}
    mean = config.mean_dimension or default_dimension(measures.rows, sum(rows.values()))
    if not config.allocate:
        return dict.fromkeys(kept, mean)
    budget = config.budget or sum((size + config.width) * mean for size in rows.values())
    return allocate(
        {name: max(evidence[name].information_bits, evidence[name].pair_bits) for name in kept},
        rows,
        {name: config.floor_dimension * (2 if name in paired else 1) for name in kept},
        budget=budget,
        width=config.width,
        most=config.largest_dimension,
    )
