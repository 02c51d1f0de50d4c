"""Times graphs side by side, as the service runs them: one thread, no spinning, one call after the other."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Feed = dict[str, NDArray[np.int32]]

FEWEST_CALLS = 5


def session(model: str | bytes) -> ort.InferenceSession:
    """Open a model (a path, or its bytes) with the options that the service's scorer uses."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def interleaved_medians(
    contestants: Mapping[str, tuple[ort.InferenceSession, Sequence[Feed]]], *, seconds: float, quantile: float = 0.5
) -> dict[str, float]:
    """Return each session's median call in microseconds.

    The sessions take turns call by call, so that what disturbs the machine disturbs all of them alike; each turn uses
    the next feed, so that caches see changing rows.

    Args:
        contestants: Name to a session and its feeds.
        seconds: For all of them together; each gets at least five calls.
        quantile: Of the calls; a lower one than the median where other work on the machine must not count.
    """
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    calls = {name: (*_bare(runner), feeds) for name, (runner, feeds) in contestants.items()}
    options = ort.RunOptions()
    for run, outputs, feeds in calls.values():
        run(outputs, feeds[0], options)
    end = time.perf_counter() + seconds
    turn = 0
    while turn < FEWEST_CALLS or time.perf_counter() < end:
        for name, (run, outputs, feeds) in calls.items():
            feed = feeds[turn % len(feeds)]
            start = time.perf_counter()
            run(outputs, feed, options)
            spent[name].append(time.perf_counter() - start)
        turn += 1
    return {name: float(np.quantile(times, quantile)) * 1e6 for name, times in spent.items()}


def _bare(runner: ort.InferenceSession) -> tuple[Callable[..., object], list[str]]:
    """The call that the service's scorer makes, without the checks of names around it, and what it asks for."""
    inner = getattr(runner, "_sess", None)
    return (runner.run if inner is None else inner.run), [output.name for output in runner.get_outputs()]
