"""What DTF's phases end with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.dtf import Start
    from training.models.reaction import FusionForm, TowerPair

__all__ = ["DtfResult"]


@dataclass(frozen=True)
class DtfResult:
    """Both forms, how they came about, and what was chosen on the way.

    Attributes:
        pair: The towers.
        form: The fusion form.
        history: Every evaluation on the way.
        closed: Fields whose gates closed.
        table_l2: Of the towers' tables.
        half_scale_at: How often a value is seen whose row began at half of their scale.
        share_below: Evidence below which values share rows.
        fusion_start: What the fusion form began from.
        notes: What a reader has to know of how it came about.
    """

    pair: TowerPair
    form: FusionForm
    history: list[dict[str, Any]]
    closed: tuple[str, ...]
    table_l2: float
    half_scale_at: float
    share_below: float
    fusion_start: Start
    notes: tuple[str, ...] = ()
