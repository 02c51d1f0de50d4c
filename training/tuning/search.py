"""The search itself: trials drawn by optuna, kept in a file as they end, near ties decided by further seeds.

A search is a function of data, experiment and number of trials. It lives in `<out>.tuning/`: optuna's SQLite storage
and the checkpoints of the training under way, so that one that was killed goes on where it was. Only the training and
the validation split are read.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from training.afe import select
from training.baseline import fit_yardstick
from training.field_selection.allocation import BudgetError
from training.loop import check_labels, measure_fields, train_reaction
from training.models.base import field_slots, with_dims
from training.phases.checkpoint import CheckpointError
from training.phases.phase import NonFiniteLossError
from training.tuning.space import applied, as_params, suggest
from training.tuning.tried import Found, State, Tried, choose, finalists, served_parameters

if TYPE_CHECKING:
    from pathlib import Path

    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

    from training.config import ExperimentConfig
    from training.field_selection.measures import Measures
    from training.loader import PreparedData
    from training.phases.phase import Progress
    from training.towers.linear_start import Yardstick

PHASES: Final = {"tower_a": "tower_a", "tower_b": "tower_b", "fusion": "fused"}
"""Phase -> the output that it is judged by."""
DRAWN: Final = 6
"""Trials before the search looks at what they came to."""
COMPARED: Final = 4
"""Finished trials before one may be stopped early."""
PATIENCE: Final = 4
"""Evaluations of a phase before a trial may be stopped early."""
KEPT: Final = 67.0
"""Per cent of the trials that go on at every evaluation."""
DRAWS: Final = 5
"""Draws a trial at most: what would be larger than the limit is not trained, and is no trial."""
AGAIN: Final = 2
"""Further seeds that decide between finalists, the experiment as it was always among them."""
LARGER: Final = 2.0
"""A trial may have so many times the parameters of the experiment as it was, unless a limit is given."""


class TuningError(RuntimeError):
    """A search cannot be begun or continued; the message says where, expected and got."""


class TuningExtraError(TuningError):
    """The extra that brings optuna is not installed."""


class OutOfTimeError(Exception):
    """The search's time is over in the middle of a training, which can be gone on with."""


class _StoppedEarlyError(Exception):
    """A trial is so far behind that it is not worth its end."""


@dataclass
class Search:
    """A search under way.

    Args:
        data: Prepared data.
        config: The experiment as it is.
        folder: Where its state lies; made if absent.
        progress: Told how far it is.
        limit: Most parameters of a trial; `LARGER` times those of the experiment as it is if None.
        deadline: `time.monotonic()` after which no further step is taken.
    """

    data: PreparedData
    config: ExperimentConfig
    folder: Path
    progress: Progress
    limit: int | None = None
    deadline: float = math.inf
    _study: Study = field(init=False)
    _measures: Measures = field(init=False)
    _yardstick: Yardstick = field(init=False)
    _most: int = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._study = self._open()
        check_labels(self.data)
        self._measures = measure_fields(self.data, self.config, self.progress)
        self._yardstick = fit_yardstick(self.data, self.config.seed)
        self._most = self.limit or int(LARGER * self._parameters(self.config))

    def run(self, trials: int) -> None:
        """Search until so many trials were trained, then let further seeds decide.

        Raises:
            OutOfTimeError: The time is over; `found` has what there is, and another run goes on.
        """
        while True:
            tried = self.tried()
            done = sum(trial.state != "too large" for trial in tried)
            if done >= trials or len(tried) >= DRAWS * trials:
                break
            self.progress("trials", done, trials, f"{done} ended{self._note()}")
            self._trial(len(tried))
        self.progress("trials", trials, trials, f"all ended{self._note()}")
        chosen = finalists(self.tried(), self.config.train.monitor, self.config.seed)
        missing = [
            (trial, self.config.seed + 1 + i)
            for i in range(AGAIN)
            for trial in chosen
            if self.config.seed + 1 + i not in trial.scores
        ]
        for done, (trial, seed) in enumerate(missing):
            self.progress("further seeds", done, len(missing), f"trial {trial.number}")
            value = self._train(applied(self.config, trial.overrides).model_copy(update={"seed": seed}), None)
            self._study.set_user_attr(_key(trial.number, seed), value)
        self._study.set_user_attr("ended", len(self._ended()))

    def found(self) -> Found:
        """What there is so far.

        Raises:
            TuningError: No trial came to its end.
        """
        tried = self.tried()
        monitor, seed = self.config.train.monitor, self.config.seed
        if not any(trial.state == "complete" for trial in tried):
            raise TuningError(
                f"{self.folder}: expected a trial that came to its end, got none yet; tune again to go on"
            )
        ended = self._study.user_attrs.get("ended") == len(tried)
        return Found(monitor, seed, self._most, tuple(tried), choose(tried, monitor, seed), ended)

    def _open(self) -> Study:
        optuna = load_optuna()
        asked = fingerprint(self.data, self.config, self.limit)
        storage = f"sqlite:///{self.folder.resolve() / 'study.db'}"
        monitor = self.config.train.monitor
        direction = "maximize" if monitor == "auc" else "minimize"
        pruner = optuna.pruners.PercentilePruner(KEPT, n_startup_trials=COMPARED, n_warmup_steps=PATIENCE)
        study: Study = optuna.create_study(
            storage=storage, study_name="tune", direction=direction, pruner=pruner, load_if_exists=True
        )
        known = study.user_attrs.get("fingerprint", asked)
        if known != asked:
            raise TuningError(
                f"{self.folder}: expected a search on this data, from this experiment and with this limit, got one "
                f"with other {', '.join(key for key in asked if known.get(key) != asked[key])}; delete it to start anew"
            )
        study.set_user_attr("fingerprint", asked)
        # One was under way when the search was stopped: it is drawn again, the same, and its training goes on.
        for trial in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        return study

    def _trial(self, number: int) -> None:
        """Run the next trial; what it draws depends on the seed, its number and the trials before it alone."""
        optuna = load_optuna()
        seed = int(hashlib.sha256(f"{self.config.seed}/{number}".encode()).hexdigest()[:8], 16)
        self._study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=DRAWN)
        if number == 0 and not self._study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.WAITING]):
            self._study.enqueue_trial(as_params(self.config))
        trial = self._study.ask()
        overrides = suggest(trial, self.config)
        if number == 0:
            overrides = {}
        trial.set_user_attr("number", number)
        trial.set_user_attr("overrides", overrides)
        config = applied(self.config, overrides)
        started = time.monotonic()
        value: float | None = None
        state: State = "complete"
        size = 0
        try:
            size = self._parameters(config)
            if number and size > self._most:
                state = "too large"
            else:
                value = self._train(config, trial)
        except BudgetError:
            state = "too large"
        except _StoppedEarlyError:
            state = "stopped early"
        except NonFiniteLossError:
            state = "diverged"
        for name, fact in (("state", state), ("parameters", size), ("seconds", time.monotonic() - started)):
            trial.set_user_attr(name, fact)
        if value is None:
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(trial, value)

    def _train(self, config: ExperimentConfig, trial: Trial | None) -> float:
        """Train, from where it was left if it was; return what the fused model comes to on the validation split."""
        # Settings are compared by pairs alone: further towers make every model better, and take a third of its time and
        # more.
        # What a model begins from is as the first training that ended found, unless it is given.
        start = config.dtf.fusion_start or self._study.user_attrs.get("fusion_start")
        dtf = config.dtf.model_copy(update={"council": 0, "evidence": 0.0, "fusion_start": start})
        config = config.model_copy(update={"dtf": dtf})
        digest = hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:16]
        workdir = self.folder / f"training-{digest}"
        monitor = config.train.monitor
        reported: dict[str, int] = {}
        judged = PHASES if start else PHASES.keys() - {"fusion"}

        def observe(history: list[dict[str, Any]]) -> None:
            if time.monotonic() > self.deadline:
                raise OutOfTimeError
            # The first trial may search for L2 and sharing, of which what it kept is told at its end alone. Nor is a
            # trial judged by what its model begins from before that is known.
            if trial is not None and trial.user_attrs["number"] and history[0]["phase"] in judged:
                self._judge(trial, history, reported)

        try:
            for resume in (True, False):
                try:
                    result = train_reaction(
                        self.data,
                        config,
                        workdir,
                        resume=resume,
                        progress=self.progress,
                        measures=self._measures,
                        observe=observe,
                        splits=("valid",),
                        yardstick=self._yardstick,
                    )
                    break
                except CheckpointError:  # left by another version of the code
                    if not resume:
                        raise
        except (_StoppedEarlyError, NonFiniteLossError):
            shutil.rmtree(workdir, ignore_errors=True)
            raise
        shutil.rmtree(workdir, ignore_errors=True)
        self._study.set_user_attr("fusion_start", start or result.fusion_start)
        if trial is not None and not trial.user_attrs["number"]:
            for phase in PHASES:
                self._judge(trial, [record for record in result.history if record["phase"] == phase], reported)
        return float(result.metrics["validation"]["fused"][monitor])

    def _judge(self, trial: Trial, history: list[dict[str, Any]], reported: dict[str, int]) -> None:
        """Report a phase's evaluations; end a trial that is far behind the others at the same one."""
        phase = history[0]["phase"]
        stopped_by = f"{PHASES[phase]}.scaled_log_loss"
        key = stopped_by if stopped_by in history[0] else f"{PHASES[phase]}.{self.config.train.monitor}"
        best = max if self.config.train.monitor == "auc" else min
        values = [record[key] for record in history]
        for place in range(reported.get(phase, 0), len(values)):
            # Evaluations of different phases are steps of their own: they compare with each other only.
            trial.report(best(values[: place + 1]), list(PHASES).index(phase) * 10_000 + place)
        # A phase that is trained again (a weak tower, a beginning as logistic regression) adds what is new at most.
        reported[phase] = max(len(values), reported.get(phase, 0))
        if len(values) > PATIENCE and trial.user_attrs["number"] and trial.should_prune():
            raise _StoppedEarlyError

    def _parameters(self, config: ExperimentConfig) -> int:
        selection = select(self._measures, config.afe)
        slots = with_dims(field_slots(self.data.encoder, lambda _name, _rows: 1), selection.dims)
        return served_parameters(slots, config.dtf.widths)

    def _ended(self) -> list[FrozenTrial]:
        optuna = load_optuna()
        states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
        return list(self._study.get_trials(deepcopy=False, states=states))

    def tried(self) -> list[Tried]:
        """All trials that ended, in order."""
        seeds = range(self.config.seed + 1, self.config.seed + 1 + AGAIN)
        again = self._study.user_attrs
        tried = []
        for trial in self._ended():
            facts = trial.user_attrs
            number = facts["number"]
            scores = {} if trial.state.name == "PRUNED" or trial.value is None else {self.config.seed: trial.value}
            scores |= {seed: again[_key(number, seed)] for seed in seeds if _key(number, seed) in again}
            tried.append(
                Tried(number, facts["overrides"], facts["state"], scores, facts["parameters"], facts["seconds"])
            )
        return tried

    def _note(self) -> str:
        done = [trial for trial in self.tried() if trial.state == "complete"]
        if not done:
            return ""
        monitor = self.config.train.monitor
        best = (max if monitor == "auc" else min)(trial.scores[self.config.seed] for trial in done)
        return f", best {'AUC' if monitor == 'auc' else 'log loss'} {best:.4f}"


def fingerprint(data: PreparedData, config: ExperimentConfig, limit: int | None) -> dict[str, str]:
    """What a search depends on, digested by part."""
    sections = {name: getattr(config, name).model_dump(mode="json") for name in ("afe", "dtf", "train")}
    sections["train"].pop("device")
    parts = {"data": data.digest, "seed": config.seed, "limit": limit, **sections}
    return {name: hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest() for name, part in parts.items()}


def load_optuna() -> Any:
    """Import optuna, its log turned down to warnings.

    Raises:
        TuningExtraError: It is not there.
    """
    try:
        import optuna  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise TuningExtraError(
            "tune: expected the extra 'tune' (optuna), got none; install it: pip install 'reaction-ctr[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _key(number: int, seed: int) -> str:
    return f"trial {number}, seed {seed}"
