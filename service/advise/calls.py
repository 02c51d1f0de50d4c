"""Times calls of the model within this process: precisions and threads side by side, in turns."""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Final

from service.advise.measured import CallTimes
from service.advise.requests import bodies, golden_feeds, spread_feeds
from service.pipeline import Pipeline, Work
from service.scorer import Scorer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.advise.requests import Feed
    from service.bundle import Bundle
    from service.bundle_format.manifest import Precision

__all__ = ["CANDIDATES", "compare_precisions", "compare_threads"]

CANDIDATES: Final = (1, 100, 1000)
ROUNDS: Final = 9
_FEWEST_CALLS: Final = 3


def compare_precisions(bundle: Bundle, most_candidates: int, seconds: float) -> CallTimes:
    """Time every precision of a bundle, on golden ids and on ids spread over the tables.

    Args:
        bundle: What to measure.
        most_candidates: Most that a request may have.
        seconds: For all of it.
    """
    scorers: dict[str, Scorer] = {precision: Scorer(bundle, precision=precision) for precision in bundle.variants}
    return _compare(bundle, scorers, most_candidates, seconds)


def compare_threads(
    bundle: Bundle, precision: Precision, threads: Sequence[int], most_candidates: int, seconds: float
) -> CallTimes:
    """Time calls on several threads.

    Args:
        bundle: What to measure.
        precision: The precision to serve.
        threads: Numbers of threads.
        most_candidates: Most that a request may have.
        seconds: For all of it.
    """
    scorers = {str(count): Scorer(bundle, threads=count, precision=precision) for count in threads}
    return _compare(bundle, scorers, most_candidates, seconds)


def _compare(bundle: Bundle, scorers: Mapping[str, Scorer], most_candidates: int, seconds: float) -> CallTimes:
    sizes = [size for size in CANDIDATES if size <= most_candidates] or [most_candidates]
    feeds: dict[str, list[Feed]] = {}
    rest: dict[str, float] = {}
    one = next(iter(scorers.values()))
    for size in sizes:
        spent = _rest(one, bundle, size)
        for kind, made in (
            ("golden", golden_feeds(bundle.golden, size)),
            ("spread", spread_feeds(bundle.encoder, size)),
        ):
            feeds[f"{size}, {kind} ids"] = made
            rest[f"{size}, {kind} ids"] = spent
    each = seconds / (len(feeds) * len(scorers) * ROUNDS)
    times: dict[tuple[str, str], list[float]] = {(case, way): [] for case in feeds for way in scorers}
    for requests in feeds.values():
        for way in scorers:
            _call(scorers[way], requests, 0.0)  # warm
    for number in range(ROUNDS):
        # Forwards and backwards, so that no way always comes after the same one.
        order = list(scorers) if number % 2 == 0 else list(reversed(list(scorers)))
        for case, requests in feeds.items():
            for way in order:
                times[case, way].append(_call(scorers[way], requests, each))
    return CallTimes(tuple(scorers), tuple(feeds), {key: tuple(found) for key, found in times.items()}, rest)


def _call(scorer: Scorer, feeds: Sequence[Feed], seconds: float) -> float:
    """Median seconds of a call, of as many as fit into a time."""
    spent: list[float] = []
    end = perf_counter() + seconds
    while len(spent) < _FEWEST_CALLS or perf_counter() < end:
        context_ids, candidate_ids = feeds[len(spent) % len(feeds)]
        began = perf_counter()
        scorer.run(context_ids, candidate_ids)
        spent.append(perf_counter() - began)
    return median(spent)


def _rest(scorer: Scorer, bundle: Bundle, candidates: int) -> float:
    """Median seconds that decoding, encoding and writing take of a request, whatever the model does."""
    pipeline = Pipeline(scorer, max_candidates=candidates)
    spent = []
    for body in bodies(bundle.golden, candidates):
        work = Work(body, request_id="advise", packed=False, answer_packed=False)
        began = perf_counter()
        pipeline.run(work)
        spent.append(perf_counter() - began - (work.inferred - work.encoded))
    return median(spent)
