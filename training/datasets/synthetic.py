"""A click log with known truth: which fields inform, which are noise, copies or halves of an XOR, and the best AUC.

One request has 2 to 6 candidates. Context fields have one value a request, candidate fields one a row; given its
fields, a row's label is an independent coin of probability sigmoid(intercept + sum of effects). Drawn by the seed:
names, order and sides of the fields, their sizes, which are copied how often, the number of XOR pairs.

- informative: categorical fields, a number, a multi-valued field, long-tailed identifiers on both sides (one is the
  finer level of a categorical field: a hierarchy, which is no copy);
- weak: categorical fields with about a hundredth of the logit's variance;
- xor: pairs, one of two fields of 50 values each; a field alone says nothing about the label;
- copies of informative fields: exact under other texts, or with one value in 300 replaced;
- noise: categorical fields, a number, a multi-valued field, identifiers (one sees most of its values once).

```toml
[data]
dataset = "synthetic"
options = { rows = 150000, seed = 1 }
split = { kind = "given", column = "split", test = "test" }
```
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
import polars as pl
from pydantic import Field

from training.datasets._synthetic_log import MISSING, NEAR_COPY, TAGS, FieldTruth, Role, SyntheticLog, tail
from training.datasets.base import BuildContext, FrameSource, Table, TableSpec
from training.datasets.config import DataConfig, FieldConfig, StrictModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FieldTruth", "SyntheticData", "SyntheticOptions", "Truth", "auc", "build", "generate"]

BASE_RATE: Final = 0.3
LABEL, GROUP, SPLIT = "label", "request", "split"
TRAIN, VALID, TEST = 0, 1, 2  # codes of the splits
NAMES: Final = ("train", "valid", "test")
SHARES: Final = (0.7, 0.15)  # of the requests, for training and validation


@dataclass(frozen=True)
class Truth:
    """What is known about a generated log.

    Attributes:
        fields: by name, in the log's order.
        duplicates: groups of fields that are copies of each other.
        xor_pairs: pairs of names.
        base_rate: mean probability of all rows.
        bayes_auc: AUC of the true probabilities on the test split: no model can be better, but for luck.
    """

    fields: dict[str, FieldTruth]
    duplicates: tuple[frozenset[str], ...]
    xor_pairs: tuple[tuple[str, str], ...]
    base_rate: float
    bayes_auc: float

    def named(self, role: Role) -> frozenset[str]:
        """Names of the fields of a role, copies included."""
        return frozenset(name for name, field in self.fields.items() if field.role == role)


@dataclass(frozen=True)
class SyntheticData:
    """A generated log, N rows.

    Attributes:
        frame: raw values, all text: the fields, then label (0, 1), request and split (train, valid, test).
        fields: the fields' description.
        label: (N,) uint8.
        probabilities: (N,) the labels' true probabilities.
        logits: (N,) the same as log-odds.
        xor_effects: pair -> (N,) its part of the logits, +w or -w.
        group: (N,) int64, number of the request.
        split: (N,) int8, 0 train, 1 valid, 2 test; a request is in one split.
        truth: see `Truth`.
    """

    frame: pl.DataFrame
    fields: tuple[FieldConfig, ...]
    label: NDArray[np.uint8]
    probabilities: NDArray[np.float64]
    logits: NDArray[np.float64]
    xor_effects: dict[tuple[str, str], NDArray[np.float64]]
    group: NDArray[np.int64]
    split: NDArray[np.int8]
    truth: Truth

    def probabilities_without(self, *pairs: tuple[str, str]) -> NDArray[np.float64]:
        """E[p | everything but these XOR pairs] (N,): the best prediction of who lost them."""
        logits = [self.logits]
        for pair in pairs:
            effect = self.xor_effects[pair]
            logits = [part for known in logits for part in (known, known - 2.0 * effect)]
        return np.asarray(sum(sigmoid(part) for part in logits) / len(logits))


class SyntheticOptions(StrictModel):
    """`[data] options` of this data set.

    Attributes:
        rows: of all splits together.
        seed: of everything drawn; the experiment's if not given.
    """

    rows: Annotated[int, Field(ge=1000, le=10_000_000)] = 150_000
    seed: Annotated[int, Field(ge=0)] | None = None


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), for logits far from overflow."""
    return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def auc(label: NDArray[np.uint8], score: NDArray[np.float64]) -> float:
    """Area under the ROC curve, ties counted half (Mann-Whitney)."""
    _, tied, count = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks = (last - (count - 1) / 2.0)[tied]
    positives = int(label.sum())
    above = ranks[label == 1].sum() - positives * (positives + 1) / 2.0
    return float(above / (positives * (label.size - positives)))


def _fill(log: SyntheticLog) -> None:
    """Add the fields. Sizes and effects are such that about 10^5 rows suffice to learn them within 0.01 AUC."""

    def between(low: int, high: int) -> int:
        return int(log.rng.integers(low, high + 1))

    small = [
        log.categorical("informative", tail(between(5, 25)), 0.5, log.side(), missing) for missing in (MISSING, 0, 0)
    ]
    for _ in range(2):
        log.categorical("weak", tail(between(4, 20)), 0.15, log.side())
    log.number("informative", 0.5)
    log.tags("informative", 0.5, size=24)
    user = log.categorical("informative", tail(between(400, 800), 6.0, 1.8), 0.4, "context")
    item = log.hierarchy("candidate", between(20, 40), tail(between(400, 800), 6.0, 1.8), 0.35)

    log.xor((50, 50), weight=1.2)
    for _ in range(between(1, 2)):
        log.xor((2 * between(1, 4), 2 * between(1, 8)), weight=0.9)

    log.categorical("noise", tail(between(2, 30)), 0.0, log.side())
    log.categorical("noise", tail(between(2, 30)), 0.0, log.side(), MISSING)
    log.categorical("noise", tail(between(300, 1000)), 0.0, log.side())
    log.categorical("noise", tail(max(log.rows // 10, 50)), 0.0, log.side())
    log.categorical("noise", tail(log.rows, power=0.3), 0.0, log.side())
    log.number("noise", 0.0)
    log.tags("noise", 0.0, size=24)

    for position, original in enumerate(log.rng.permutation([*small, user, item])[: between(2, 3)].tolist()):
        for _ in range(between(1, 2)):
            log.copy(original, wrong=0.0 if position else NEAR_COPY)


def _intercept(effects: NDArray[np.float64]) -> float:
    """The intercept under which the mean probability is the base rate, by bisection."""
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2.0
        if sigmoid(effects + middle).mean() < BASE_RATE:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


def _field_config(known: FieldTruth) -> FieldConfig:
    if known.kind == "multi_valued":
        return FieldConfig(name=known.name, kind=known.kind, side=known.side, max_values=TAGS, pooling="sum")
    return FieldConfig(name=known.name, kind=known.kind, side=known.side)


def generate(rows: int, seed: int) -> SyntheticData:
    """Generate a log; the same rows and seed give the same log.

    Args:
        rows: number of rows N; 70% of the requests are for training, 15% each for validation and test.
        seed: of everything drawn.
    """
    log = SyntheticLog(rows, seed)
    _fill(log)
    logits = log.logits + _intercept(log.logits)
    probabilities = sigmoid(logits)
    label = (log.rng.random(rows) < probabilities).astype(np.uint8)
    drawn = np.searchsorted(np.cumsum(SHARES), log.rng.random(log.requests), side="right")
    split = drawn.astype(np.int8)[log.group]

    order: list[str] = log.rng.permutation(list(log.columns)).tolist()
    frame = pl.DataFrame(
        {name: pl.Series(log.columns[name], dtype=pl.String) for name in order}
        | {
            LABEL: pl.Series(label).cast(pl.String),
            GROUP: pl.Series(log.group).cast(pl.String),
            SPLIT: pl.Series(np.array(NAMES)[split].tolist(), dtype=pl.String),
        }
    )
    copies: dict[str, set[str]] = {}
    for known in log.truth.values():
        if known.copy_of is not None:
            copies.setdefault(known.copy_of, {known.copy_of}).add(known.name)
    test = split == TEST
    truth = Truth(
        fields={name: log.truth[name] for name in order},
        duplicates=tuple(frozenset(group) for group in copies.values()),
        xor_pairs=tuple(log.xor_effects),
        base_rate=float(probabilities.mean()),
        bayes_auc=auc(label[test], probabilities[test]),
    )
    fields = tuple(_field_config(known) for known in truth.fields.values())
    return SyntheticData(frame, fields, label, probabilities, logits, log.xor_effects, log.group, split, truth)


def build(config: DataConfig, context: BuildContext) -> Table:
    """The data set for `prepare`.

    Raises:
        pydantic.ValidationError: Unknown options, or too few rows.
    """
    options = SyntheticOptions.model_validate(config.options)
    seed = context.seed if options.seed is None else options.seed
    data = generate(options.rows, seed)
    spec = TableSpec(name="synthetic", fields=data.fields, label=LABEL, group=GROUP)
    return Table(spec, FrameSource(data.frame, origin=f"synthetic log, seed {seed}"))
