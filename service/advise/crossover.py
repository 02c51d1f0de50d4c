"""When is a body better scored in a thread? Measures what the event loop loses either way, on a loop of the same kind.

The heartbeat is a task that does nothing but come round again, so the longest pause between two beats is how long a
request that came in meanwhile would have waited for its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import TYPE_CHECKING, Final

from service.advise.measured import CrossoverPoint
from service.advise.requests import FORMS, bodies
from service.pipeline import Pipeline, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from service.scorer import Scorer

__all__ = ["measure_crossover"]

CANDIDATES: Final = (1, 10, 30, 100, 200, 500, 1000, 2000, 5000, 10_000)
ROUNDS: Final = 9
# A body that takes longer says nothing new, and nine rounds of it take the time of all the others.
_LONGEST_SECONDS: Final = 0.25


def measure_crossover(
    scorer: Scorer, *, max_candidates: int, max_body_bytes: int, seconds: float
) -> list[CrossoverPoint]:
    """Score bodies of rising length on an event loop and in a thread beside it, in turns.

    Args:
        scorer: The model as it will be served.
        max_candidates: Most candidates that the service takes.
        max_body_bytes: Longest body that it takes.
        seconds: For all of it; sizes are left out from the largest down when it runs short.

    Returns:
        Points by form, and within a form by rising length.
    """
    pipeline = Pipeline(scorer, max_candidates=max_candidates)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner, ThreadPoolExecutor(1) as threads:
        return [
            point
            for form in FORMS
            for point in runner.run(
                _form(pipeline, threads, form, list(_sizes(scorer, form, max_candidates, max_body_bytes)), seconds / 2)
            )
        ]


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - there is none on Windows

    return uvloop.new_event_loop


def _sizes(scorer: Scorer, form: str, max_candidates: int, max_body_bytes: int) -> Iterator[tuple[int, bytes]]:
    for size in CANDIDATES:
        if size > max_candidates:
            return
        body = bodies(scorer.bundle.golden, size, form, count=1)[0]
        if len(body) > max_body_bytes:
            return
        yield size, body


async def _form(
    pipeline: Pipeline, threads: ThreadPoolExecutor, form: str, sizes: list[tuple[int, bytes]], seconds: float
) -> list[CrossoverPoint]:
    end = perf_counter() + seconds
    points = []
    for size, body in sizes:
        inline, threaded, blocked = [], [], []
        for number in range(ROUNDS + 1):
            alone = _inline(pipeline, body)
            beside, pause = await _threaded(pipeline, threads, body)
            if number:  # the first one warms up
                inline.append(alone)
                threaded.append(beside)
                blocked.append(pause)
        points.append(CrossoverPoint(form, size, len(body), tuple(inline), tuple(threaded), tuple(blocked)))
        # The next size takes about as many times longer as it is larger: three at most.
        if max(inline) > _LONGEST_SECONDS or perf_counter() + 3 * sum(inline + threaded) > end:
            break
    return points


def _work(body: bytes) -> Work:
    return Work(body, request_id="advise", packed=False, answer_packed=False)


def _inline(pipeline: Pipeline, body: bytes) -> float:
    began = perf_counter()
    pipeline.run(_work(body))
    return perf_counter() - began


async def _threaded(pipeline: Pipeline, threads: ThreadPoolExecutor, body: bytes) -> tuple[float, float]:
    """Seconds until the answer is there, and the longest pause of the loop until then."""
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        last = perf_counter()
        while True:
            await asyncio.sleep(0)
            now = perf_counter()
            longest = max(longest, now - last)
            last = now

    heart = asyncio.ensure_future(beat())
    await asyncio.sleep(0)
    began = perf_counter()
    await asyncio.get_running_loop().run_in_executor(threads, pipeline.run, _work(body))
    spent = perf_counter() - began
    heart.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await heart
    return spent, longest
