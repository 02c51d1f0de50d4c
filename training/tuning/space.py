"""What the search varies: few settings, each around the value that the experiment starts from.

Overrides are written as in an experiment, "section.key" -> value: a trial is the experiment with some of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from training.towers.search import USUAL_HALF, USUAL_SHARE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna import Trial

    from training.config import ExperimentConfig

Overrides = dict[str, Any]

RATES: Final = 3.0
"""Learning rates go from a third to three times the experiment's."""
STRENGTHS: Final = 10.0
"""The tables' L2 goes from a tenth to ten times the experiment's."""
DROPOUTS: Final = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
AVERAGINGS: Final = (0.98, 0.99, 0.995, 0.998)
DIMENSIONS: Final = (2, 4, 8, 16)
WIDTHS: Final = ((32, 32), (64,), (64, 64), (128, 64), (64, 64, 64))
SHARES: Final = (USUAL_SHARE, 0.0)
"""Rare values share table rows, or not; one of them, as for the tables' L2, where the experiment leaves it open."""
HALVES: Final = (0.0, USUAL_HALF)
"""Rows of rare values begin near zero, or as all; all alike where the experiment leaves it open."""
LEAST_L2: Final = 10.0
"""What the range of the tables' L2 is around where the experiment has none: where it leaves that to validation, the
range is around `USUAL_L2`, since a search of a search would train every trial several times."""


def suggest(trial: Trial, config: ExperimentConfig) -> Overrides:
    """Draw a trial's overrides.

    Args:
        trial: Draws them.
        config: The experiment: the ranges are around its values.
    """
    train = config.train
    rate = _around(trial, "train.rate", train.rate, RATES, most=0.5)
    table_rate = _around(trial, "train.table_rate", train.table_rate, RATES, most=0.5)
    found: Overrides = {
        "train.rate": rate,
        "train.table_rate": table_rate,
        "train.table_l2": _around(trial, "train.table_l2", train.first_table_l2 or LEAST_L2, STRENGTHS),
        "train.dropout": trial.suggest_categorical("train.dropout", _with(DROPOUTS, train.dropout)),
        "train.averaging": trial.suggest_categorical("train.averaging", _with(AVERAGINGS, train.averaging)),
        "afe.share_below": trial.suggest_categorical("afe.share_below", _with(SHARES, _share(config))),
        "train.half_scale_at": trial.suggest_categorical(
            "train.half_scale_at", _with(HALVES, train.first_half_scale_at)
        ),
    }
    if config.afe.budget is None:  # otherwise the budget says what the dimensions may be
        # None is a choice of the space as well: by the number of rows a value, as the default is.
        choice = trial.suggest_categorical("afe.mean_dimension", ["auto", *map(str, DIMENSIONS)])
        if choice != "auto":
            found["afe.mean_dimension"] = int(choice)
    widths = trial.suggest_categorical("dtf.widths", [_named(w) for w in _with(WIDTHS, config.dtf.widths)])
    found["dtf.widths"] = [int(width) for width in widths.split("-")]
    return found


def as_params(config: ExperimentConfig) -> dict[str, Any]:
    """The experiment itself as a point of the space."""
    train = config.train
    point: dict[str, Any] = {
        "train.rate": train.rate,
        "train.table_rate": train.table_rate,
        "train.table_l2": train.first_table_l2 or LEAST_L2,
        "train.dropout": train.dropout,
        "train.averaging": train.averaging,
        "afe.share_below": _share(config),
        "train.half_scale_at": train.first_half_scale_at,
        "dtf.widths": _named(config.dtf.widths),
    }
    if config.afe.budget is None:
        point["afe.mean_dimension"] = "auto"
    return point


def applied(config: ExperimentConfig, overrides: Mapping[str, Any]) -> ExperimentConfig:
    """Return the experiment with overrides.

    Raises:
        pydantic.ValidationError: A value that may not be.
    """
    sections: dict[str, dict[str, Any]] = {}
    for key, value in overrides.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    changed = {}
    for section, values in sections.items():
        old = getattr(config, section)
        changed[section] = type(old).model_validate({**old.model_dump(), **values})
    return config.model_copy(update=changed)


def _share(config: ExperimentConfig) -> float:
    return USUAL_SHARE if config.afe.share_below is None else config.afe.share_below


def _around(trial: Trial, name: str, middle: float, factor: float, most: float | None = None) -> float:
    high = middle * factor if most is None else max(min(middle * factor, most), middle)
    # Three digits are plenty, and what is written is then what was tried.
    return float(f"{trial.suggest_float(name, middle / factor, high, log=True):.3g}")


def _with(choices: Sequence[Any], own: Any) -> list[Any]:
    """The choices, and the experiment's own value where it is none of them."""
    return list(choices) if own in choices else [*choices, own]


def _named(widths: Sequence[int]) -> str:
    """Storage holds text and numbers only."""
    return "-".join(map(str, widths))
