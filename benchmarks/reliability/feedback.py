"""Delivery feedback of two replicas that share nothing but a secret, beside what is known of every click.

Rankings are asked of one replica and their outcomes told to the other, on a new connection each, so that any worker may
get any of it. Clicks are drawn by the scores; some events come twice, some with a token that nobody signed, and some
once their window is over. What the counters of both say together is compared with the list of all that was shown.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.reliability.services import make_store, service
from service.feedback.counts import BOUNDS, EVENTS, Tally
from service.feedback.quality import quality

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.reliability.services import Service

__all__ = ["feedback_figures"]

_SHOWN: Final = 5
_CLIENTS: Final = 8
_WAIT_SECONDS: Final = 120.0
_FORGED: Final = 0.02
_REPEATED: Final = 0.1
_KEPT: Final = 0.02
_ACCEPTED: Final = 202
_OUTCOMES: Final = ("click", "repeated", "forged", "late")


@dataclass(slots=True)
class _Known:
    """What happened, as the clients know it.

    Attributes:
        scores: Of every impression.
        clicks: Whether it was clicked.
        issued: When (`time`), one an impression.
        kept: Tokens that are told once their window is over.
        repeated, forged: Events that had to be counted so.
        unexpected: Answers to events that were none of those.
    """

    scores: list[float] = field(default_factory=list)
    clicks: list[bool] = field(default_factory=list)
    issued: list[float] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    repeated: int = 0
    forged: int = 0
    unexpected: int = 0


def feedback_figures(place: Path, *, rankings: int, window_seconds: int, workers: int = 4) -> dict[str, float]:
    """Serve, click, wait until all windows are over, and compare.

    Args:
        place: An empty directory.
        rankings: How many are asked for; five candidates of each are shown.
        window_seconds: Of the feedback.
        workers: Of each replica.

    Returns:
        Figures by key.
    """
    store, bodies = make_store(place)
    settings: dict[str, Any] = {
        "workers": workers,
        "watch_seconds": 0,
        "drain_seconds": 0,
        "feedback_secret": "shared-by-both-replicas",
        "feedback_ratio": 1,
        "feedback_window_seconds": window_seconds,
    }
    known, early = _Known(), 0.0
    with contextlib.ExitStack() as stack:
        replicas = [stack.enter_context(service(store.root, place, **settings)) for _ in range(2)]
        with ThreadPoolExecutor(_CLIENTS) as clients:
            jobs = [
                clients.submit(_rank_and_tell, replicas, bodies.documents[number % len(bodies.documents)], number)
                for number in range(rankings)
            ]
            for number, job in enumerate(jobs):
                _add(known, job.result())
                if number % 200 == 0:
                    early = max(early, _too_early(replicas, known, window_seconds))
        end = time.monotonic() + _WAIT_SECONDS
        while _counted(replicas) < len(known.scores) and time.monotonic() < end:
            early = max(early, _too_early(replicas, known, window_seconds))
            time.sleep(0.5)
        time.sleep(1.0)  # each worker closes its own counts of a window, within half a second
        for token in known.kept:
            status, _ = _post(replicas[0], "/feedback", {"token": token, "click": True})
            known.unexpected += status == _ACCEPTED
        return {"feedback_replicas": 2, "feedback_workers": workers, "feedback_negatives_too_early": early} | _compare(
            replicas, known
        )


def _rank_and_tell(replicas: list[Service], document: Mapping[str, Any], seed: int) -> _Known:
    """One ranking, of one replica, and what the other is told of it."""
    random_, known = random.Random(seed), _Known()  # noqa: S311 - no secret hangs on it
    asked, told = replicas[seed % 2], replicas[(seed + 1) % 2]
    _, answer = _post(asked, "/score", {**document, "top_k": _SHOWN})
    for place, token in zip(answer["ranking"], answer["feedback_tokens"], strict=True):
        score = answer["scores"][place]
        clicked, lot = random_.random() < score, random_.random()
        kept = not clicked and lot < _KEPT
        known.scores.append(score)
        known.clicks.append(clicked)
        known.issued.append(time.time())
        known.kept += [token] if kept else []
        if clicked:
            again = lot < _REPEATED
            for _ in range(1 + again):
                known.unexpected += _post(told, "/feedback", {"token": token, "click": True})[0] != _ACCEPTED
            known.repeated += again
        if lot > 1 - _FORGED:
            forged = token[:20] + ("A" if token[20] != "A" else "B") + token[21:]
            known.unexpected += _post(told, "/feedback", {"token": forged, "click": True})[0] == _ACCEPTED
            known.forged += 1
    return known


def _add(known: _Known, more: _Known) -> None:
    known.scores += more.scores
    known.clicks += more.clicks
    known.issued += more.issued
    known.kept += more.kept
    known.repeated += more.repeated
    known.forged += more.forged
    known.unexpected += more.unexpected


def _compare(replicas: list[Service], known: _Known) -> dict[str, float]:
    """What counters say, beside what is known."""
    scrapes = [replica.metrics() for replica in replicas]
    impression, withdrawn, click = (_tally(scrapes, event) for event in EVENTS)
    found = quality(impression, withdrawn, click)
    scores, clicks = np.array(known.scores), np.array(known.clicks)
    outcomes = {name: _total(scrapes, f'feedback_events_total{{outcome="{name}"') for name in _OUTCOMES}
    wanted = {
        "click": float(clicks.sum()),
        "repeated": known.repeated,
        "forged": known.forged,
        "late": len(known.kept),
    }
    wrong = sum(abs(outcomes[name] - wanted[name]) for name in _OUTCOMES)
    wrong += abs(sum(impression.counts) - len(scores)) + abs(sum(click.counts) - clicks.sum()) + known.unexpected
    return {
        "feedback_impressions": len(scores),
        "feedback_clicks": int(clicks.sum()),
        "feedback_repeated": known.repeated,
        "feedback_forged": known.forged,
        "feedback_late": len(known.kept),
        "feedback_miscounted": int(wrong),
        "feedback_log_loss_error": round(abs((found.log_loss or 0.0) - log_loss(clicks, scores)), 9),
        "feedback_auc_error": round(abs((found.auc or 0.0) - roc_auc_score(clicks, scores)), 5),
        "feedback_calibration_error": round(
            abs((found.calibration_ratio or 0.0) - float(scores.sum()) / float(clicks.sum())), 9
        ),
    }


def _tally(scrapes: list[dict[str, float]], event: str) -> Tally:
    """Totals of an event over both."""
    buckets = [*map(repr, BOUNDS), "+Inf"]
    scored, predicted = (
        [_total(scrapes, f'feedback_{name}_total{{bucket="{bucket}",event="{event}"') for bucket in buckets]
        for name in ("scored", "predicted_clicks")
    )
    negative, positive = (
        _total(scrapes, f'feedback_log_loss_total{{event="{event}",label="{label}"') for label in ("no_click", "click")
    )
    return Tally(scored, predicted, negative, positive)


def _total(scrapes: list[dict[str, float]], start: str) -> float:
    """The sum of all samples whose name and first labels are these."""
    return sum(value for scrape in scrapes for name, value in scrape.items() if name.startswith(f"reaction_{start}"))


def _counted(replicas: list[Service]) -> float:
    """Impressions whose window is over."""
    return sum(
        value
        for scrape in (replica.metrics() for replica in replicas)
        for name, value in scrape.items()
        if name.startswith("reaction_feedback_scored_total{") and 'event="impression"' in name
    )


def _too_early(replicas: list[Service], known: _Known, window_seconds: int) -> float:
    """Impressions that are counted before their window is over, as far as is known of when they were issued."""
    counted, now = _counted(replicas), time.time()
    return max(0.0, counted - sum(issued <= now - window_seconds for issued in known.issued))


def _post(replica: Service, path: str, document: dict[str, Any]) -> tuple[int, Any]:
    """Status and answer, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", replica.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", path, json.dumps(document), {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
