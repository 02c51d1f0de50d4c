"""Runs over processes: one thread each, every finished one written down at once, whatever becomes of the others."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import TYPE_CHECKING

from benchmarks.accuracy.plan import Want, next_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.accuracy.ledger import Ledger, Line
    from benchmarks.accuracy.runs import Spec

Told = "Callable[[Line | None, Sequence[Spec]], None]"


class RunFailedError(RuntimeError):
    """A run ended with an error; the message says which."""


def work_off(
    wants: Sequence[Want],
    ledger: Ledger,
    work: Path,
    *,
    jobs: int,
    told: Callable[[Line | None, Sequence[Spec]], None],
    minutes: float | None = None,
) -> None:
    """Do what is left, cell by cell in their order.

    Args:
        wants: The cells.
        ledger: Grows by a line a run.
        work: Folder of prepared data and runs.
        jobs: Processes.
        told: Called with every finished line (None at first) and what is running.
        minutes: Start nothing after so long; None for no end.

    Raises:
        RunFailedError: A run failed; those that were running are finished and written down before.
    """
    end = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    running: dict[Future[Line], Spec] = {}
    failure: RunFailedError | None = None
    with ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), initializer=_start, initargs=(os.getpid(),)
    ) as pool:
        while True:
            if failure is None and time.monotonic() < end:
                for spec in _startable(wants, ledger, running, jobs):
                    running[pool.submit(_run, spec, work)] = spec
                    told(None, list(running.values()))
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                spec = running.pop(future)
                error = future.exception()
                if error is not None:
                    failure = RunFailedError(f"{spec.task}, {spec.model}, seed {spec.seed}, {spec.config}: {error!r}")
                    continue
                ledger.append(future.result())
                told(future.result(), list(running.values()))
    if failure is not None:
        raise failure


def _startable(wants: Sequence[Want], ledger: Ledger, running: dict[Future[Line], Spec], jobs: int) -> list[Spec]:
    busy = {spec.key for spec in running.values()}
    found: list[Spec] = []
    for want in wants:
        for spec in next_runs(want, ledger):
            if len(running) + len(found) == jobs:
                return found
            if spec.key not in busy:
                found.append(spec)
    return found


def _start(parent: int) -> None:
    """A worker ends with its parent, however that ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run(spec: Spec, work: Path) -> Line:
    from benchmarks.accuracy.runs import run  # noqa: PLC0415 - in the worker

    return run(spec, work)
