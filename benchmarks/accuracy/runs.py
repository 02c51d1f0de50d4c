"""One run: train, evaluate, and hand back its line of the ledger."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from benchmarks.accuracy.bootstrap import replicates
from benchmarks.accuracy.fitted import Config, Place, by_library
from benchmarks.accuracy.ledger import Bootstrap, Line, Metrics, Purpose, rounded, run_key
from benchmarks.accuracy.models import MODELS
from benchmarks.accuracy.tasks import TASKS, data_digest, prepared
from training.environment import library_versions
from training.metrics import evaluate
from training.phases.phase import NonFiniteLossError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from benchmarks.accuracy.fitted import Fitted
    from training.loader import PreparedData, Split


@dataclass(frozen=True)
class Spec:
    """What decides a run's outcome.

    Attributes:
        task: A name in `TASKS`.
        data: The digest of its data.
        model: A name in `MODELS`.
        purpose: "trial", "seed" or "guard"; only a seed's run reads the test split.
        config: Everything that is set.
        seed: Of the run.
    """

    task: str
    data: str
    model: str
    purpose: Purpose
    config: Config
    seed: int

    @property
    def key(self) -> str:
        """Its line's key."""
        return run_key(self.task, self.data, self.model, self.purpose, self.config, seed=self.seed)


def run(spec: Spec, work: Path) -> Line:
    """Do it.

    Raises:
        DataError: The task's data cannot be read, or is other data than the spec's.
    """
    data = prepared(spec.task, work)
    if data_digest(data) != spec.data:
        raise ValueError(f"{spec.task}: expected the data {spec.data}, got {data_digest(data)}")
    place = Place(spec.task, data, work, test=spec.purpose == "seed")
    started = time.process_time()
    fitted: Fitted | None = None
    facts: dict[str, Any] = {}
    found: dict[str, Any] = {}
    try:
        if spec.purpose == "guard":
            return _guard(spec, data)
        fitted = MODELS[spec.model].fit()(spec.model, place, spec.config, spec.seed)
    except NonFiniteLossError as error:
        facts["failed"] = str(error)
    if fitted is not None:
        facts |= fitted.facts
        valid = data.split("valid")
        found["validation"] = metrics(valid, fitted.score(valid))
    spent = time.process_time() - started
    if fitted is not None and place.test:
        test = data.split("test")
        clusters = TASKS[spec.task].clusters(test)
        pctr = fitted.score(test)
        found["test"] = metrics(test, pctr)
        found["bootstrap"] = resampled(test, pctr, clusters, spec.data)
        if fitted.more is not None:
            facts |= {name: _measured(test, value, clusters, spec.data) for name, value in fitted.more().items()}
    return _line(
        spec,
        data,
        cpu_seconds=round(spent, 1),
        parameters=None if fitted is None else fitted.parameters,
        flops=None if fitted is None else fitted.flops,
        steps=None if fitted is None else fitted.steps,
        epochs=None if fitted is None or fitted.epochs is None else round(fitted.epochs, 2),
        facts=rounded(facts),
        **found,
    )


def _line(spec: Spec, data: PreparedData, **measured: Any) -> Line:
    return Line(
        key=spec.key,
        task=spec.task,
        data=spec.data,
        split=TASKS[spec.task].split,
        model=spec.model,
        purpose=spec.purpose,
        config=spec.config,
        seed=spec.seed,
        rows=dict(data.info.rows),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        versions=versions(),
        **measured,
    )


def _guard(spec: Spec, data: PreparedData) -> Line:
    from benchmarks.accuracy.guard import by_recipe, compare  # noqa: PLC0415 - the library takes seconds

    started = time.process_time()
    if by_library(spec.config):
        library = metrics(data.split("valid"), by_recipe(spec.model, data, spec.config, spec.seed))
        return _line(spec, data, validation=library, cpu_seconds=round(time.process_time() - started, 1))
    found = compare(spec.model, data, spec.config, spec.seed)
    spent = time.process_time() - started
    valid = data.split("valid")
    ours, library = metrics(valid, found.ours), metrics(valid, found.library)
    return _line(
        spec,
        data,
        validation=ours,
        steps=found.steps,
        cpu_seconds=round(spent, 1),
        facts={
            "library": library.model_dump(exclude_none=True),
            "auc_difference": rounded(ours.auc - library.auc),
        },
    )


def metrics(split: Split, pctr: NDArray[np.float64]) -> Metrics:
    """AUC and log loss, and GAUC where there are groups."""
    found = evaluate(split.label, pctr, split.weight, split.group)
    return Metrics(**{name: rounded(found[name]) for name in ("auc", "log_loss", "gauc") if name in found})


def resampled(split: Split, pctr: NDArray[np.float64], clusters: NDArray[np.int64] | None, data: str) -> Bootstrap:
    """Metrics on resamples that depend on the task's data alone."""
    found: Mapping[str, Any] = replicates(split.label, pctr, clusters, seed=int(data[:8], 16))
    return Bootstrap(**{name: tuple(rounded([float(v) for v in found[name]])) for name in ("auc", "log_loss")})


def versions() -> dict[str, str]:
    """Of the libraries that decide an outcome."""
    from importlib.metadata import version  # noqa: PLC0415 - beside its only use

    found = {name: value for name, value in library_versions().items() if value is not None}
    return {**found, "fuxictr": version("fuxictr"), "lightgbm": version("lightgbm")}


def _measured(split: Split, value: Any, clusters: NDArray[np.int64] | None, data: str) -> Any:
    """Metrics of further predictions: of a list's each, of a single one with its resamples."""
    if isinstance(value, list):
        return [metrics(split, pctr).model_dump(exclude_none=True) for pctr in value]
    return {
        "test": metrics(split, value).model_dump(exclude_none=True),
        "bootstrap": resampled(split, value, clusters, data).model_dump(),
    }
