"""Drift that is injected fires the alert that is for it, and traffic like training's fires none.

Every kind of traffic has a service of its own, all of them the same model, whose reference statistics are of rows drawn
as the null traffic's are. One Prometheus scrapes all of them at the same time, with the shipped rules, hurried.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.reliability.fuzz.bundle import write_small_bundle
from benchmarks.reliability.prometheus import prometheus
from benchmarks.reliability.services import service
from benchmarks.reliability.steady import Bodies, clients
from service.bundle import read_bundle
from service.scorer import Scorer
from training.reference import reference_statistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.reliability.steady import Seen

__all__ = ["EXPECTED", "drift_figures"]

NULL: Final = "like_training"
EXPECTED: Final[dict[str, tuple[str, ...]]] = {
    NULL: (),
    "field_missing": ("ReactionFieldMissing", "ReactionFieldShift"),
    "all_unknown": ("ReactionFieldOutOfVocabulary", "ReactionFieldShift"),
    "shifted": ("ReactionFieldShift",),
    "scores_elsewhere": ("ReactionScoreShift",),
    "all_equal": ("ReactionScoresEqual",),
}
"""Kinds of traffic, and the alerts each has to fire; it may fire others too, but for the null."""

_TRAINING_ROWS: Final = 20_000
_BODIES: Final = 512
_CANDIDATES: Final = 8
_ADS: Final = 12


def _context(generator: np.random.Generator) -> dict[str, Any]:
    # Squares: some users come more often than others.
    context = {"user": f"u{int(25 * generator.random() ** 2)}", "page": f"/{generator.integers(40)}"}
    if generator.random() > 0.05:  # noqa: PLR2004 - as often it is missing
        context["hour"] = str(int(generator.integers(24)))
    context["tags"] = "|".join(f"t{n}" for n in range(7) if generator.random() < 0.3)  # noqa: PLR2004
    return context


def _candidate(generator: np.random.Generator) -> dict[str, Any]:
    ad = int((_ADS + 2) * generator.random() ** 2)  # some are unknown
    return {"ad": f"a{ad}", "price": round(float(generator.exponential(3.0)), 2)}


def _drifted(
    kind: str, context: dict[str, Any], candidates: list[dict[str, Any]], generator: np.random.Generator
) -> dict[str, Any]:
    """One request of a kind, made of one like training's."""
    if kind == "field_missing":
        context = {name: value for name, value in context.items() if name != "hour"}
    elif kind == "all_unknown":
        candidates = [{**row, "ad": f"new{generator.integers(1000)}"} for row in candidates]
    elif kind == "shifted":
        candidates = [{**row, "price": row["price"] * 4} for row in candidates]
    elif kind == "all_equal":
        context, candidates = {"user": "u1"}, [{"ad": "a1", "price": 1}] * len(candidates)
    return {"context": context, "candidates": candidates}


def _requests(kind: str, scorer: Scorer, seed: int) -> Bodies:
    """What clients of a kind ask, and what they are to be answered."""
    generator = np.random.default_rng(seed)
    documents = []
    for _ in range(_BODIES):
        number = 8 * _CANDIDATES if kind == "scores_elsewhere" else _CANDIDATES
        context, candidates = _context(generator), [_candidate(generator) for _ in range(number)]
        if kind == "scores_elsewhere":  # a stage before has begun to pass on the best alone
            best = np.argsort(-scorer.score(context, candidates))[:_CANDIDATES]
            candidates = [candidates[place] for place in best]
        documents.append(_drifted(kind, context, candidates, generator))
    scores = [scorer.score(d["context"], d["candidates"]) for d in documents]
    return Bodies(documents, {kind: scores})


def _write(place: Path, kinds: Sequence[str]) -> Scorer:
    """A bundle a kind, of the same weights, with what training saw; and one that scores as they do."""
    write_small_bundle(place / "plain", ads=_ADS)
    scorer = Scorer(read_bundle(place / "plain"))
    generator = np.random.default_rng(1)
    contexts = [_context(generator) for _ in range(_TRAINING_ROWS)]
    candidates = [_candidate(generator) for _ in range(_TRAINING_ROWS)]
    ids = {
        "context": scorer.encoder.encode_rows("context", contexts),
        "candidate": scorer.encoder.encode_rows("candidate", candidates),
    }
    scores = scorer.run(ids["context"], ids["candidate"])
    clicks = (generator.random(len(scores)) < scores).astype(np.uint8)
    reference = reference_statistics(scorer.encoder, ids, clicks, scores)  # type: ignore[arg-type]
    for kind in kinds:
        write_small_bundle(place / kind, model_id=kind, ads=_ADS, reference=reference)
    return scorer


def drift_figures(
    *,
    seconds: float,
    factor: float,
    rate: float,
    scrape_seconds: float = 1.0,
    kinds: Sequence[str] = tuple(EXPECTED),
    enough: bool = False,
) -> tuple[dict[str, set[str]], dict[str, float]]:
    """Serve every kind of traffic at the same time, and look at what fires.

    Args:
        seconds: How long.
        factor: What durations of the rules are divided by.
        rate: Requests a second, of each kind.
        scrape_seconds: How often is scraped and evaluated.
        kinds: Of `EXPECTED`.
        enough: End as soon as everything has fired that has to.

    Returns:
        Alerts that fired, by kind, and figures by key.
    """
    fired: dict[str, set[str]] = {kind: set() for kind in kinds}  # models are called as their kinds
    with tempfile.TemporaryDirectory(prefix="drift-") as folder, contextlib.ExitStack() as stack:
        place = Path(folder)
        scorer = _write(place, kinds)
        services = {
            kind: stack.enter_context(service(place / kind, place, workers=1, drain_seconds=0)) for kind in kinds
        }
        seen: dict[str, Seen] = {
            kind: stack.enter_context(
                clients(("127.0.0.1", running.port), _requests(kind, scorer, seed), rate=rate, connections=1)
            )
            for seed, (kind, running) in enumerate(services.items(), 2)
        }
        ports = {kind: running.port for kind, running in services.items()}
        watching = stack.enter_context(
            prometheus(place / "prometheus", ports, factor=factor, scrape_seconds=scrape_seconds)
        )
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            for labels in watching.firing():
                if labels.get("model") in fired:
                    fired[labels["model"]].add(labels["alertname"])
            if enough and all(set(EXPECTED[kind]) <= fired[kind] for kind in kinds):
                break
            time.sleep(scrape_seconds / 2)
        took = time.monotonic() - began
    return fired, {
        "drift_seconds": round(took, 1),
        "drift_durations_divided_by": factor,
        "drift_kinds": len(kinds) - 1,
        "drift_requests": sum(len(found.seconds) for found in seen.values()),
        "drift_wrong_answers": sum(len(found.failed) + len(found.mixed) for found in seen.values()),
        "drift_alerts_expected": sum(len(EXPECTED[kind]) for kind in kinds),
        "drift_alerts_missed": sum(len(set(EXPECTED[kind]) - fired[kind]) for kind in kinds),
        "drift_null_alerts": len(fired.get(NULL, ())),
    }
