"""What is left to do: a function of the ledger alone, so that an interrupted benchmark goes on where it was."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from benchmarks.accuracy.fitted import by_library
from benchmarks.accuracy.models import CLIMB, MODELS, REACH, TURN
from benchmarks.accuracy.runs import Spec
from benchmarks.accuracy.search import Search, search
from benchmarks.accuracy.tuning import (
    TABLE_SEEDS,
    TIE_SEEDS,
    TRIAL_SEED,
    Losses,
    choose,
    contenders,
    decided,
    same,
    untried,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from benchmarks.accuracy.fitted import Config
    from benchmarks.accuracy.ledger import Ledger, Line, Purpose


GUARD_EPOCHS = 3
GUARD_SEEDS = 3
"""Of the library's runs to their end, seeds of the table, where the table's run of the first one is behind."""


def guarded(defaults: Config) -> Config:
    """A config that our trainer and the library's can both follow: some epochs, one evaluation each, no averaging.

    Without batch norm where it is a setting: we estimate its statistics anew before every evaluation and the library's
    lag behind, so ours would be ahead (by 0.005 of AUC after three epochs of Avazu's sample). And without dropout, of
    which the two draw other random numbers.
    """
    fixed = {"epochs": GUARD_EPOCHS, "evaluations": 1, "patience": GUARD_EPOCHS + 1, "averaging": 0.0}
    plain = {key: value for key, value in {"batch_norm": False, "dropout": 0.0}.items() if key in defaults["model"]}
    train = {key: value for key, value in defaults["train"].items() if key not in {"calibrated", "recipe"}}
    return {"model": {**defaults["model"], **plain}, "train": {**train, **fixed}}


def finished(config: Config) -> Config:
    """A config as the library follows it to its end: dropout and norms as they are, no averaging, no calibration."""
    train = {key: config["train"][key] for key in ("batch_size", "epochs", "rate", "l2") if key in config["train"]}
    return {"model": config["model"], "train": {**train, "recipe": "library"}}


def followed(config: Config) -> Config:
    """The same as a trial: calibrated, which its choice of the epoch leaves to be done."""
    config = finished(config)
    return {**config, "train": {**config["train"], "calibrated": True}}


@dataclass(frozen=True)
class Want:
    """One cell of the table: a model on a task.

    Attributes:
        task: A name in `TASKS`.
        data: The digest of its data.
        rows: Of its training split.
        model: A name in `MODELS`.
        trials: How many configs are tried at least.
        seeds: How many seeds the chosen one is run with.
        guard: Only compare our trainer with the library's, at the chosen config, or the usual one before that is
            known; at the chosen one to the library's end too.
        first: Only one run, to see how long it takes.
    """

    task: str
    data: str
    rows: int
    model: str
    trials: int
    seeds: int
    guard: bool = False
    first: bool = False

    @property
    def wanted_seeds(self) -> int:
        """How many seeds the model is worth: one of a model without chance."""
        return min(self.seeds, MODELS[self.model].most_seeds)

    def search(self, lines: Iterable[Line]) -> Search:
        """What is tried, as far as its lines decide it."""
        model, losses = MODELS[self.model], Losses.of_lines(lines)

        def loss(config: Config) -> float | None:
            return losses.trials.get(same(config), {}).get(TRIAL_SEED)

        best = decided(losses)
        return search(
            model.defaults(self.task, self.rows),
            model.space,
            self.trials,
            loss,
            ladder=model.ladder,
            turn=TURN if model.ladder is not None else (),
            climb=CLIMB,
            reach=REACH,
            recipe=followed if model.kind == "deep" else None,
            decided=None if best is None else json.loads(best),
        )

    def lines(self, ledger: Iterable[Line]) -> list[Line]:
        """What has been done."""
        mine = (self.task, self.data, self.model)
        return [line for line in ledger if (line.task, line.data, line.model) == mine]


def next_runs(want: Want, ledger: Ledger) -> list[Spec]:
    """The runs of a cell that can be done now and have not been: trials first, then ties, then seeds."""
    return [spec for spec in _next(want, want.lines(ledger)) if spec.key not in ledger]


def _next(want: Want, lines: Sequence[Line]) -> Iterator[Spec]:
    """The runs of the stage that a cell is in, also those that have been."""

    def specs(purpose: Purpose, some: Sequence[Config], seeds: Sequence[int]) -> Iterator[Spec]:
        return (Spec(want.task, want.data, want.model, purpose, config, seed) for config in some for seed in seeds)

    tuning = want.search(lines)
    configs, chosen = tuning.configs, choose(tuning, lines)
    seeds = TABLE_SEEDS[: want.wanted_seeds]
    if want.guard:
        alike = specs("guard", [guarded(chosen or configs[0])], [TRIAL_SEED])
        if chosen is None or by_library(chosen):
            return alike
        number = GUARD_SEEDS if _behind(chosen, lines, TABLE_SEEDS[0]) else 1
        return chain(alike, specs("guard", [finished(chosen)], TABLE_SEEDS[:number]))
    if want.first:
        one = specs("trial", configs[:1], [TRIAL_SEED]) if len(configs) > 1 else specs("seed", configs, seeds[:1])
        return iter(()) if lines else one
    if chosen is not None:
        return specs("seed", [chosen], seeds)
    losses = Losses.of_lines(lines)
    if untried(configs, losses):
        return specs("trial", configs, [TRIAL_SEED])
    return specs("trial", [json.loads(config) for config in contenders(losses)], TIE_SEEDS)


def _behind(chosen: Config, lines: Sequence[Line], seed: int) -> bool:
    """Whether the library's own run to its end has the greater AUC on a seed, which further ones tell from luck.

    False before it has run; True where it has and the table's has not.
    """
    library = [line for line in lines if line.purpose == "guard" and same(line.config) == same(finished(chosen))]
    ours = [line for line in lines if line.purpose == "seed" and same(line.config) == same(chosen)]
    found = [next((line.validation for line in side if line.seed == seed), None) for side in (ours, library)]
    if found[1] is None:
        return False
    return found[0] is None or found[0].auc < found[1].auc


def settled(lines: Sequence[Line], fewest: int, most: int = 32) -> str | None:
    """The key of the config that tuning chose of one cell; None while a search of any number of trials is not over.

    Args:
        lines: A task's and a model's, of one data.
        fewest: Trials that a search has at least.
        most: The most that are thought of.
    """
    one = lines[0]
    for trials in range(fewest, most):
        want = Want(one.task, one.data, one.rows["train"], one.model, trials, len(TABLE_SEEDS))
        chosen = choose(want.search(lines), lines)
        if chosen is not None:
            return same(chosen)
    return None


def expected(want: Want, ledger: Ledger) -> int:
    """About how many runs a cell still needs: further rungs, and how many are near the best, cannot be known before."""
    if want.guard or want.first:
        return len(next_runs(want, ledger))
    lines = want.lines(ledger)
    tuning = want.search(lines)
    chosen = choose(tuning, lines)
    seeds = [line for line in lines if line.purpose == "seed" and chosen is not None and line.config == chosen]
    trials = 0
    if len(tuning.configs) > 1 and chosen is None:
        trials = len(untried(tuning.configs, Losses.of_lines(lines))) + len(TIE_SEEDS) - 1
    if not tuning.whole:
        trials += max(0, want.trials - len(tuning.configs))
    return trials + max(0, want.wanted_seeds - len(seeds))
