"""Latency of all models of a task side by side: one process, one thread, turn by turn, net of an empty graph's call.

A call has one context row and N candidates, real rows of the test split, other ones at each turn. What a call of the
runtime costs whatever is in the graph is that of a graph that only takes the same inputs; net latency is without it.
Turns are cut into blocks of time: spreads and ratios come from medians of blocks, in which all models met the same
machine.

Beside the clock stands the calling thread's own processor time. Other work that takes the processor away falls on long
calls more than on short ones, so a ratio by the clock flatters the shorter: a claim has to hold by both.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from model_export.graph import INPUTS, IR_VERSION, OPSET, OUTPUT
from model_export.latency import session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnxruntime as ort
    from numpy.typing import NDArray

    from model_export.latency import Feed

FEEDS: Final = {1: 512, 100: 64, 1000: 16}
"""Candidates of a call to the number of different calls: rows of tables must not all be in cache from before."""

BLOCKS: Final = 20
EMPTY: Final = "an empty graph"
FEWEST_TURNS: Final = 5
_RESAMPLES: Final = 2000


@dataclass(frozen=True)
class Contestant:
    """A model that takes part.

    Attributes:
        runner: Its session.
        feed: Turns rows of the prepared layout into its inputs.
    """

    runner: ort.InferenceSession
    feed: Callable[[NDArray[np.int32], NDArray[np.int32]], Feed]


@dataclass(frozen=True)
class Timing:
    """Calls of one model at one number of candidates.

    Attributes:
        median: Microseconds.
        least: The shortest call.
        calls: How many.
        blocks: Median of each block of turns.
        processor: Median of the thread's processor time.
        processor_blocks: Its median in each block.
    """

    median: float
    least: float
    calls: int
    blocks: tuple[float, ...]
    processor: float
    processor_blocks: tuple[float, ...]

    def facts(self) -> dict[str, Any]:
        """For the table of latencies."""
        return {
            name: [round(one, 2) for one in value] if isinstance(value, tuple) else round(value, 2)
            for name, value in vars(self).items()
        }


def race(
    contestants: Mapping[str, Contestant],
    context_ids: NDArray[np.int32],
    candidate_ids: NDArray[np.int32],
    *,
    seconds: float,
    seed: int = 0,
    sizes: Sequence[int] = tuple(FEEDS),
) -> dict[str, dict[int, Timing]]:
    """Time every model and an empty graph at every number of candidates.

    Args:
        contestants: The models.
        context_ids: (N, Cc) rows of the test split, on the prepared layout.
        candidate_ids: (N, Ci).
        seconds: For each number of candidates, all models together.
        seed: Of the rows that make a call.
        sizes: Numbers of candidates.

    Returns:
        Name (`EMPTY` among them) to number of candidates to timing.
    """
    generator = np.random.default_rng(seed)
    width = {"context_ids": context_ids.shape[1], "candidate_ids": candidate_ids.shape[1]}
    plain = Contestant(
        session(empty_graph(width)), lambda context, rows: {"context_ids": context, "candidate_ids": rows}
    )
    everyone = {EMPTY: plain, **contestants}
    found: dict[str, dict[int, Timing]] = {name: {} for name in everyone}
    for size in sizes:
        drawn = [
            (generator.integers(0, len(context_ids), 1), generator.integers(0, len(candidate_ids), size))
            for _ in range(FEEDS.get(size, 16))
        ]
        feeds = {
            name: [one.feed(context_ids[context], candidate_ids[rows]) for context, rows in drawn]
            for name, one in everyone.items()
        }
        calls = _turns({name: one.runner for name, one in everyone.items()}, feeds, seconds)
        for name, (clock, processor) in calls.items():
            found[name][size] = _timing(clock, processor)
    return found


def empty_graph(width: Mapping[str, int]) -> bytes:
    """A graph with a model's inputs that does nothing with them and answers one constant."""
    dims = dict(zip(INPUTS, ("context_rows", "rows"), strict=True))
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, [dims[name], width[name]]) for name in INPUTS]
    output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [1])
    constant = numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    graph = helper.make_graph([helper.make_node("Identity", ["zero"], [OUTPUT])], "empty", inputs, [output], [constant])
    opset = helper.make_opsetid("", OPSET)
    content: bytes = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[opset]).SerializeToString()
    return content


def ratio(
    ours: Sequence[float], theirs: Sequence[float], empty: Sequence[float], level: float = 0.95
) -> tuple[float, float, float]:
    """Net latency of ours over theirs, with an interval from blocks of turns resampled together.

    Args:
        ours: Medians of blocks.
        theirs: Of the same blocks.
        empty: Of the empty graph in the same blocks.
        level: Of the interval.

    Returns:
        The ratio, its lower and its upper bound.
    """
    a, b, e = (np.asarray(values) for values in (ours, theirs, empty))
    rows = np.random.default_rng(0).integers(0, len(a), (_RESAMPLES, len(a)))
    drawn = _net(np.median(a[rows], axis=1), np.median(e[rows], axis=1)) / _net(
        np.median(b[rows], axis=1), np.median(e[rows], axis=1)
    )
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(_net(np.median(a), np.median(e)) / _net(np.median(b), np.median(e))), float(low), float(high)


class Load:
    """What else the machine did: processor time of all others as a share of all processors, while inside `with`.

    Attributes:
        others: The share, 0 to 1; NaN where the system does not tell.
    """

    others = float("nan")

    def __enter__(self) -> Self:
        self._start = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        (wall, busy, own), end = self._start, self._now()
        cores = os.cpu_count() or 1
        self.others = max(0.0, (end[1] - busy - (end[2] - own)) / ((end[0] - wall) * cores))

    @staticmethod
    def _now() -> tuple[float, float, float]:
        own = time.process_time()
        try:
            fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
        except OSError:
            return time.perf_counter(), float("nan"), own
        user, nice, system, _, _, interrupts, soft = (float(value) for value in fields[:7])
        return time.perf_counter(), (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK"), own


def _turns(
    runners: Mapping[str, ort.InferenceSession], feeds: Mapping[str, Sequence[Feed]], seconds: float
) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds of every call, by the clock and by the thread's processor time; models take turns call by call.

    The order is drawn anew for each turn: after a large model a small one finds the caches cold, and that must not be
    one model's lot alone.
    """
    order = np.random.default_rng(len(runners))
    names = list(runners)
    calls = {name: (runner, [OUTPUT], feeds[name]) for name, runner in runners.items()}
    spent: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in calls}
    for runner, outputs, all_feeds in calls.values():
        runner.run(outputs, all_feeds[0])
    end = time.perf_counter() + seconds
    turn = 0
    while turn < FEWEST_TURNS or time.perf_counter() < end:
        for place in order.permutation(len(names)):
            name = names[place]
            runner, outputs, all_feeds = calls[name]
            feed = all_feeds[turn % len(all_feeds)]
            busy, start = time.thread_time(), time.perf_counter()
            runner.run(outputs, feed)
            stop, spared = time.perf_counter(), time.thread_time()
            spent[name][0].append(stop - start)
            spent[name][1].append(spared - busy)
        turn += 1
    return spent


def _timing(clock: Sequence[float], processor: Sequence[float]) -> Timing:
    wall, busy = (np.asarray(times) * 1e6 for times in (clock, processor))
    return Timing(
        median=float(np.median(wall)),
        least=float(wall.min()),
        calls=len(wall),
        blocks=_medians(wall),
        processor=float(np.median(busy)),
        processor_blocks=_medians(busy),
    )


def _medians(times: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(np.median(block)) for block in np.array_split(times, min(BLOCKS, len(times))))


def _net(latency: NDArray[np.float64], empty: NDArray[np.float64]) -> NDArray[np.float64]:
    """At least a tenth of the empty call: a difference of two like numbers must not become a ratio out of noise."""
    return np.maximum(latency - empty, 0.1 * empty)
