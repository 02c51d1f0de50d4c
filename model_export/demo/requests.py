"""Real requests of the test split, sent to a running service, compared with the model that was trained, and timed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from model_export.demo.workplace import DemoError
from model_export.parity import Reference, sigmoid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from model_export.demo.live import Client, Latency
    from model_export.export import Exported
    from service.bundle import Bundle
    from training.datasets.synthetic import SyntheticData

TEST_SPLIT: Final = 2
REQUESTS: Final = 400
"""Real requests scored over HTTP."""

LATENCY_ROWS: Final = (1, 20, 100, 1000)
LATENCY_SECONDS: Final = 1.0
LATENCY_BODIES: Final = 16
SHOWN_CANDIDATES: Final = 12


@dataclass(frozen=True)
class Request:
    """One ranking request of the test split, as the log has it.

    Attributes:
        rows: (n,) its rows in the log.
        context: what its candidates share.
        candidates: their own values.
    """

    rows: NDArray[np.int64]
    context: dict[str, Any]
    candidates: list[dict[str, Any]]


@dataclass(frozen=True)
class Answers:
    """What the service said.

    Attributes:
        requests: How many requests, and
        candidates: how many candidates they had.
        unfused: Largest difference to the unfused torch model.
        golden: Largest difference to the bundle's golden rows, through all three forms of a request.
        ranked: The request that is shown, and its answer.
        latency: A call by number of candidates.
    """

    requests: int
    candidates: int
    unfused: float
    golden: float
    ranked: tuple[Request, dict[str, Any]]
    latency: tuple[Latency, ...]


def ask(client: Client, bundle: Bundle, exported: Exported, log: SyntheticData) -> Answers:
    """Score golden rows and real requests, compare, and time the calls.

    Raises:
        DemoError: Scores over HTTP are not the unfused model's, to the bundle's tolerance.
    """
    tolerance = bundle.manifest.facts.tolerance
    loaded = exported.loaded
    reference = Reference(loaded.form, loaded.negative_sampling_rate, loaded.calibration)
    encoder = exported.loaded.encoder
    requests = list(requests_of(log, REQUESTS))
    scored, unfused = [], 0.0
    for request in requests:
        scored.append(client.score(request.context, request.candidates, top_k=3))
        context = encoder.encode_rows("context", [request.context])
        candidates = encoder.encode_rows("candidate", request.candidates)
        expected = sigmoid(reference.logits(context, candidates))
        unfused = max(unfused, float(np.abs(np.array(scored[-1]["scores"]) - expected).max()))
    golden = golden_difference(client, bundle)
    for name, difference in (("unfused model", unfused), ("golden rows", golden)):
        if not difference <= tolerance:
            raise DemoError(f"scores over HTTP: expected the {name}'s to {tolerance:g}, got {difference:g} off")
    shown = max(range(len(requests)), key=lambda index: _interest(log, requests[index]))
    timed = tuple(_time(client, requests, rows) for rows in LATENCY_ROWS)
    candidates_scored = sum(len(request.candidates) for request in requests)
    return Answers(len(requests), candidates_scored, unfused, golden, (requests[shown], scored[shown]), timed)


def requests_of(log: SyntheticData, limit: int) -> Iterator[Request]:
    """The first requests of the test split, raw."""
    sides = {field.name: field.side for field in log.fields}
    tested = np.flatnonzero(log.split == TEST_SPLIT)
    groups = log.group[tested]
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    for rows in np.split(tested, starts[1:])[:limit]:
        values = log.frame[rows.tolist()].select(list(sides)).to_dicts()
        by_side = [
            [
                {name: value for name, value in row.items() if sides[name] == side and value is not None}
                for row in values
            ]
            for side in ("context", "candidate")
        ]
        yield Request(rows, by_side[0][0], by_side[1])


def golden_difference(client: Client, bundle: Bundle) -> float:
    """Largest difference of the golden rows' scores through rows, columns and the pointwise form."""
    largest = 0.0
    for row in bundle.golden:
        columns = {name: [value] for name, value in row.candidate.items()}
        forms: list[tuple[Any, Any]] = [(row.context, [row.candidate]), (None, [{**row.context, **row.candidate}])]
        if columns:
            forms.append((row.context, columns))
        for context, candidates in forms:
            score = client.score(context, candidates)["scores"][0]
            largest = max(largest, abs(score - row.pctr))
    return largest


def _interest(log: SyntheticData, request: Request) -> tuple[bool, int]:
    """Worth showing: not too long, with a click and with none, and as many candidates as fit."""
    clicks = log.label[request.rows]
    return bool(0 < clicks.sum() < len(clicks) and len(clicks) <= SHOWN_CANDIDATES), len(clicks)


def _time(client: Client, requests: Sequence[Request], rows: int) -> Latency:
    """Time requests of so many candidates, sent as columns."""
    pool = [candidate for request in requests for candidate in request.candidates]
    names = sorted({name for candidate in pool for name in candidate})
    bodies = []
    for number in range(LATENCY_BODIES):
        chosen = [pool[(number * rows + index) % len(pool)] for index in range(rows)]
        columns = {name: [candidate.get(name) for candidate in chosen] for name in names}
        body = {"context": requests[number % len(requests)].context, "candidates": columns}
        bodies.append(json.dumps(body).encode())
    return client.latency(bodies, rows, seconds=LATENCY_SECONDS)
