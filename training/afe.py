"""AFE, the first half of REACTION: measure every field, drop what says nothing, give the rest its dimensions.

1. Measure (`measuring`): what each field says about the label alone, beyond every other field and beyond all that
   inform alone, and what fields share.
2. Filter (`selection`): dropped are *noise* (nothing in any of these ways, so halves of an XOR stay) and *copies*
   (nearly the whole entropy shared with a field that is kept, and nothing about the label beyond it). A field that
   is a function of a finer one is no copy. `alpha` bounds the chance of keeping any noise; what carries measurable
   information stays.
3. Gates (`gates`): priors from the evidence, for the trainer's hard-concrete field gates.
4. Allocate (`allocation`): dimensions by information under one parameter budget.
5. Share (`towers.row_sharing`, while training): rare values of a field share rows by what was seen of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from service.features import PAD
from training.field_selection.allocation import allocate, default_dimension
from training.field_selection.field_views import MeasuredSlot
from training.field_selection.measures import Measures
from training.field_selection.measuring import measure as measure_arrays
from training.field_selection.screening import LARGEST_TABLE
from training.field_selection.selection import (
    Evidence,
    Selection,
    find_copies,
    find_interactions,
    find_noise,
    prior_log_odds,
    weigh,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from service.features import FeatureEncoder
    from training.field_selection.field_views import SlotLike
    from training.loader import PreparedData

__all__ = [
    "AfeConfig",
    "Evidence",
    "Measures",
    "Selection",
    "measure",
    "measure_prepared",
    "new_groups",
    "select",
    "slots_of",
]

Dimension = Annotated[int, Field(ge=1, le=16)]


class AfeConfig(BaseModel):
    """The `[afe]` section.

    Attributes:
        filter: drop noise and copies; all fields are kept if false.
        allocate: dimensions by information; all fields get the mean dimension if false.
        gates: train field gates, which may close further fields.
        gate_penalty: strength of the gates' penalty: log loss worth all parameters of tables and projections.
        share_below: values of less evidence than so many rows share table rows by their counts (`row_sharing`), none if
            0. By default 10 and 0 are tried, and 10 is taken where it is clearly better on validation.
        alpha: chance of keeping any noise for what it says alone, the same for pairs, and the same beyond all fields.
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
    share_below: Annotated[float, Field(ge=0.0)] | None = None
    alpha: Annotated[float, Field(gt=0.0, lt=1.0)] = 1e-3
    copy_redundancy: Annotated[float, Field(gt=0.9, le=1.0)] = 0.98
    keep: tuple[str, ...] = ()
    mean_dimension: Dimension | None = None
    largest_dimension: Dimension = 16
    floor_dimension: Dimension = 2
    budget: Annotated[int, Field(ge=1)] | None = None
    width: Annotated[int, Field(ge=1)] = 64
    pair_rows: Annotated[int, Field(ge=1000)] = 500_000
    pair_values: Annotated[int, Field(ge=2, le=LARGEST_TABLE)] = LARGEST_TABLE
    seed: int = 0


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
            pad_id=PAD if encoder.field(column.name).kind == "multi_valued" else None,
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
        ValueError: `keep` names no field.
        BudgetError: The budget is too small for the fields that are kept.
    """
    config = AfeConfig() if config is None else config
    unknown = sorted(set(config.keep) - set(measures.names))
    if unknown:
        raise ValueError(f"afe.keep: expected names of fields, got {unknown}; the fields are {list(measures.names)}")
    evidence = weigh(measures)
    noise: dict[str, str] = {}
    copies: dict[str, tuple[str, float]] = {}
    if config.filter:
        noise = find_noise(measures, evidence, alpha=config.alpha, keep=config.keep)
        rest = {name: found for name, found in evidence.items() if name not in noise}
        copies = find_copies(measures, rest, redundancy=config.copy_redundancy, alpha=config.alpha, keep=config.keep)
    dropped = noise | {
        name: f"copy of {original}: shares {share:.1%} of the entropy and says nothing beyond it"
        for name, (original, share) in copies.items()
    }
    kept = tuple(name for name in measures.names if name not in dropped)
    interactions = find_interactions(measures, kept, alpha=config.alpha)
    return Selection(
        kept=kept,
        dropped={name: dropped[name] for name in measures.names if name in dropped},
        noise=tuple(noise),
        copies={name: original for name, (original, _) in copies.items()},
        interactions=interactions,
        gate_prior={name: prior_log_odds(evidence[name]) for name in kept},
        dims=_dimensions(measures, kept, {name for pair in interactions for name in pair}, evidence, config),
        evidence=evidence,
    )


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
        {name: evidence[name].most_bits for name in kept},
        rows,
        {name: config.floor_dimension * (2 if name in paired else 1) for name in kept},
        budget=budget,
        width=config.width,
        most=config.largest_dimension,
    )
