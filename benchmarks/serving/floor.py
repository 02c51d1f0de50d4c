"""The floor in one process, without HTTP: decode + encode + infer + write.

`python -m benchmarks.serving.floor SPEC.json` reads `{"bundle": DIR, "few": DIR, "seconds": S, "cases": {NAME: FILE},
"context": {NAME: [FILE, FILE]}}`. `cases` are requests of the bundle. `few` is a bundle of fewer context fields; for
each entry of `context` the first file goes to the bundle and the second to `few`, call by call in turn, and what they
differ by is the cost of the context fields. Prints one JSON object.

Calls are timed by the thread's own processor time, which other processes do not lengthen.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from dataclasses import replace
from itertools import cycle, pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from benchmarks.serving.payloads import MSGPACK, read_requests
from service.bundle import read_bundle
from service.features import FeatureEncoder
from service.pipeline import Pipeline, Work
from service.scorer import Scorer

if TYPE_CHECKING:
    from collections.abc import Sequence

STAGES: Final = ("decode", "encode", "infer", "write")
_WARM_UP_SHARE: Final = 0.2
_MOST_CANDIDATES: Final = 10_000
_CONTEXT_SECONDS: Final = 5
"""Times as long: a small difference of large times takes many pairs."""


def work_of(request: bytes) -> Work:
    """A whole HTTP request as the route hands it to the pipeline."""
    head, _, body = request.partition(b"\r\n\r\n")
    packed = MSGPACK.encode() in head
    return Work(body, request_id="bench", packed=packed, answer_packed=packed)


def run_case(pipeline: Pipeline, requests: Sequence[bytes], seconds: float) -> dict[str, Any]:
    """Run requests in turn for a while.

    Returns:
        `cpu_us` a request (processor time of the whole loop, so that what is freed counts) and `stages_us`, medians.
    """
    spent: list[tuple[float, ...]] = []
    cpu = 0.0
    for share in (_WARM_UP_SHARE, 1.0):
        spent = []
        started = time.process_time()
        end = time.perf_counter() + share * seconds
        for request in cycle(requests):
            work = work_of(request)
            pipeline.run(work)
            ended = time.perf_counter()
            marks = (work.started, work.decoded, work.encoded, work.inferred, ended)
            spent.append(tuple(after - before for before, after in pairwise(marks)))
            if ended > end:
                break
        cpu = time.process_time() - started
    # Medians: a stage is timed by the clock, during which another process may have had the core.
    stages = {stage: median(one) * 1e6 for stage, one in zip(STAGES, zip(*spent, strict=True), strict=True)}
    return {"requests": len(spent), "cpu_us": cpu / len(spent) * 1e6, "stages_us": stages}


def compare(
    many: Pipeline, few: Pipeline, requests: tuple[Sequence[bytes], Sequence[bytes]], seconds: float
) -> dict[str, Any]:
    """Time two pipelines call by call in turn.

    Returns:
        Medians of a call in microseconds, and the median of the differences of neighbours.
    """
    pairs: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    for one, other in zip(cycle(requests[0]), cycle(requests[1]), strict=True):
        first, second = work_of(one), work_of(other)
        runs = ((many, first), (few, second))
        if len(pairs) % 2:  # neither always finds the caches as the other left them
            runs = (runs[1], runs[0])
        began = time.thread_time()
        runs[0][0].run(runs[0][1])
        middle = time.thread_time()
        runs[1][0].run(runs[1][1])
        ended = time.thread_time()
        spent = (middle - began, ended - middle)
        pairs.append((spent[1], spent[0]) if len(pairs) % 2 else spent)
        if time.perf_counter() > end:
            break
    return {
        "pairs": len(pairs),
        "many_us": median(one for one, _ in pairs) * 1e6,
        "few_us": median(other for _, other in pairs) * 1e6,
        "difference_us": median(one - other for one, other in pairs) * 1e6,
    }


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """Run a specification."""
    bundle, few = (read_bundle(Path(spec[name])) for name in ("bundle", "few"))
    # Both look the same texts up in the same tables: where a table lies in memory makes more of a difference.
    names = [field.name for field in few.encoder.fields]
    shared = FeatureEncoder(
        [bundle.encoder.field(name) for name in names], {name: bundle.encoder.vocabulary(name) for name in names}
    )
    pipelines = {
        "bundle": Pipeline(Scorer(bundle), max_candidates=_MOST_CANDIDATES),
        "few": Pipeline(Scorer(replace(few, encoder=shared)), max_candidates=_MOST_CANDIDATES),
    }
    gc.collect()
    gc.freeze()  # as the service does
    cases = {
        name: run_case(pipelines["bundle"], read_requests(Path(file)), spec["seconds"])
        for name, file in spec["cases"].items()
    }
    context = {
        name: compare(
            pipelines["bundle"],
            pipelines["few"],
            (read_requests(Path(files[0])), read_requests(Path(files[1]))),
            _CONTEXT_SECONDS * spec["seconds"],
        )
        for name, files in spec["context"].items()
    }
    return {"cases": cases, "context": context, "cpu_s": time.process_time()}


if __name__ == "__main__":
    json.dump(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), sys.stdout)
