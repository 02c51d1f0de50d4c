"""Delivery feedback over real sockets: two replicas, of four and of two workers, that share nothing but a secret."""

from __future__ import annotations

import contextlib
import http.client
import math
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
from processes import wait_for, workers_of
from serving import COUNTS, MODEL_ID, ROW_CANDIDATES, ROW_CONTEXT, Server, samples, serving, start
from sklearn.metrics import log_loss, roc_auc_score
from stores import build_store, model_of

from service.feedback.counts import BOUNDS
from service.feedback.tokens import Keyring

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "the-secret-of-this-test"
WINDOW_SECONDS = 3
MODEL = f'model="{MODEL_ID}"'


@pytest.fixture(scope="module")
def replicas(bundle: Path) -> Iterator[list[Server]]:
    settings = {"feedback_secret": SECRET, "feedback_ratio": 1, "feedback_window_seconds": WINDOW_SECONDS}
    with contextlib.ExitStack() as stack:
        servers = []
        for workers in (4, 2):
            servers.append(start(bundle, wait=False, workers=workers, **settings))
            stack.callback(servers[-1].stop)
        for server in servers:
            wait_for(lambda server=server: is_ready(server), "every replica is ready")  # type: ignore[misc]
        yield servers


@pytest.fixture(scope="module")
def desk(bundle: Path) -> Iterator[httpx.Client]:
    """A server whose windows last longer than its tests."""
    with serving(bundle, feedback_secret=SECRET, feedback_ratio=1) as server, httpx.Client(base_url=server.url) as one:
        yield one


def is_ready(server: Server) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{server.url}/readyz").status_code == 200
    return False


def scrape(server: Server) -> dict[str, float]:
    return samples(httpx.get(f"{server.url}/metrics").text)


def outcomes(client: httpx.Client) -> dict[str, float]:
    start = 'reaction_feedback_events_total{outcome="'
    counts = samples(client.get("/metrics").text)
    return {name.removeprefix(start)[:-2]: n for name, n in counts.items() if name.startswith(start) and n}


def row(random_: random.Random) -> dict[str, Any]:
    return {
        "ad": random_.choice([*COUNTS["ad"], "new"]),
        "price": random_.random() * 12,
        "tags": random_.choices("xyz"),
    }


def post(server: Server, path: str, document: Any) -> tuple[int, Any]:
    """Status and answer; on a connection of its own, so that any worker may get it."""
    with contextlib.closing(http.client.HTTPConnection(*server.address, timeout=30)) as connection:
        connection.request("POST", path, msgspec.json.encode(document), {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, msgspec.json.decode(answer.read())


@dataclass
class Shown:
    """A candidate that was shown.

    Attributes:
        score: Its score.
        clicked, withdrawn: What a replica said that it was counted as.
        repeats: How often it said that it knew that.
    """

    score: float
    clicked: bool = False
    withdrawn: bool = False
    repeats: int = 0


def rank_and_tell(replicas: list[Server], seed: int) -> list[Shown]:
    """Ask one replica for a ranking, and tell another one what became of it: some of it several times."""
    random_ = random.Random(seed)
    body = {
        "context": {"user": random_.choice([*COUNTS["user"], "new"]), "hour": random_.random() * 12},
        "candidates": [row(random_) for _ in range(6)],
        "top_k": 3,
    }
    _, answer = post(replicas[seed % 2], "/score", body)
    return [
        told(replicas[(seed + 1) % 2], token, answer["scores"][place], random_)
        for token, place in zip(answer["feedback_tokens"], answer["ranking"], strict=True)
    ]


def told(server: Server, token: str, score: float, random_: random.Random) -> Shown:
    shown, chance = Shown(score), random_.random()
    word = {"click": True} if chance < score else {"shown": False} if chance > 0.95 else {"click": False}
    for _ in range(random_.choice((1, 1, 2, 3))):
        status, answer = post(server, "/feedback", {"token": token, **word})
        # On a very slow machine it may be too late for a word; it is told so, and nothing is counted.
        outcome = answer["outcomes"][0] if status == 202 else answer["status"]
        shown.clicked |= outcome == "click"
        shown.withdrawn |= outcome == "withdrawn"
        shown.repeats += outcome == "repeated"
    return shown


def total(replicas: list[Server], name: str) -> float:
    """The sum of a sample over all replicas."""
    return sum(scrape(server).get(name, 0.0) for server in replicas)


def scored(replicas: list[Server], event: str) -> list[float]:
    """Counts of each bucket of scores, over all replicas."""
    scrapes = [scrape(server) for server in replicas]
    found = []
    for bucket in (*map(repr, BOUNDS), "+Inf"):
        name = f'reaction_feedback_scored_total{{bucket="{bucket}",event="{event}",{MODEL}}}'
        found.append(sum(counts.get(name, 0.0) for counts in scrapes))
    return found


def test_log_loss_auc_and_calibration_are_those_of_all_impressions_whoever_was_told_of_the_clicks(
    replicas: list[Server],
) -> None:
    with ThreadPoolExecutor(8) as threads:
        jobs = threads.map(lambda seed: rank_and_tell(replicas, seed), range(120))
        shown = [one for answered in jobs for one in answered]
    wait_for(lambda: sum(scored(replicas, "impression")) == len(shown) == 360, "every window is over", 60)
    # Each worker closes its own counts of a window, within half a second.
    for event, expected in (("click", [one.clicked for one in shown]), ("withdrawn", [one.withdrawn for one in shown])):
        wait_for(lambda: sum(scored(replicas, event)) == sum(expected) > 0, f"{event}: as told", 10)  # noqa: B023
    assert sum(one.clicked for one in shown) > 20
    assert total(replicas, f"reaction_feedback_tokens_total{{{MODEL}}}") == len(shown)
    repeats = sum(one.repeats for one in shown)
    assert total(replicas, 'reaction_feedback_events_total{outcome="repeated"}') == repeats > 20

    rows = [(one.score, one.clicked) for one in shown if not one.withdrawn]
    loss = {
        (event, label): total(replicas, f'reaction_feedback_log_loss_total{{event="{event}",label="{label}",{MODEL}}}')
        for event in ("impression", "withdrawn", "click")
        for label in ("click", "no_click")
    }
    counted = loss["impression", "no_click"] - loss["withdrawn", "no_click"] - loss["click", "no_click"]
    counted += loss["click", "click"]
    by_hand = sum(-math.log(score if label else 1 - score) for score, label in rows)
    assert counted == pytest.approx(by_hand, rel=1e-6)

    impressions, clicks, taken = (scored(replicas, event) for event in ("impression", "click", "withdrawn"))
    pairs = below = 0.0
    for seen, gone, clicked in zip(impressions, taken, clicks, strict=True):
        pairs += clicked * (below + (seen - gone - clicked) / 2)
        below += seen - gone - clicked
    ranks = [
        (positive > negative) + (positive == negative) / 2
        for positive, label in rows
        for negative, other in rows
        if label and not other
    ]
    assert pairs / (sum(clicks) * below) == pytest.approx(sum(ranks) / len(ranks), abs=0.01)

    predicted = {
        event: sum(
            value
            for server in replicas
            for name, value in scrape(server).items()
            if name.startswith("reaction_feedback_predicted_clicks_total") and f'event="{event}"' in name
        )
        for event in ("impression", "withdrawn")
    }
    assert predicted["impression"] - predicted["withdrawn"] == pytest.approx(sum(score for score, _ in rows), rel=1e-6)


def test_what_a_replica_shows_of_itself_is_what_scikit_learn_says_of_the_same_rows(bundle: Path) -> None:
    random_ = random.Random(5)
    labels: list[bool] = []
    scores: list[float] = []
    with serving(bundle, feedback_secret=SECRET, feedback_ratio=1, feedback_window_seconds=WINDOW_SECONDS) as server:
        for _ in range(60):
            body = {"context": {"hour": random_.random() * 12}, "candidates": [row(random_)], "top_k": 1}
            _, answer = post(server, "/score", body)
            scores.append(answer["scores"][0])
            labels.append(random_.random() < 0.2 + scores[-1])
            if labels[-1]:
                event = {"token": answer["feedback_tokens"][0], "click": True}
                labels[-1] = post(server, "/feedback", event)[0] == 202
        wait_for(lambda: sum(scored([server], "impression")) == 60, "every window is over", 60)
        counts = scrape(server)
    shown = {name: counts[f"reaction_feedback_{name}{{{MODEL}}}"] for name in ("log_loss", "auc", "calibration_ratio")}
    assert shown["log_loss"] == pytest.approx(log_loss(labels, scores), rel=1e-6)
    assert shown["auc"] == pytest.approx(roc_auc_score(labels, scores), abs=0.02)
    assert shown["calibration_ratio"] == pytest.approx(sum(scores) / sum(labels), rel=1e-6)


def test_events_that_do_not_count_are_refused_with_a_reason_and_counted(desk: httpx.Client) -> None:
    good, forger = Keyring([SECRET.encode()]), Keyring([b"the-secret-of-another"])
    now = int(time.time())
    score = [(0, 0.5)]
    events = {
        410: good.sign(MODEL_ID, now - 3601, score, shown=True)[0],
        403: forger.sign(MODEL_ID, now, score, shown=True)[0],
        422: good.sign(MODEL_ID, now + 7200, score, shown=True)[0],
    }
    for status, token in events.items():
        answer = desk.post("/feedback", json={"token": token.decode(), "click": True})
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
    for body in ({"token": "nonsense", "click": True}, {"token": events[403].decode()}):
        assert desk.post("/feedback", json=body).json()["type"].endswith(":malformed-token")
    assert outcomes(desk) == {"late": 1, "forged": 1, "early": 1, "malformed": 2}


def test_a_batch_is_taken_event_by_event(desk: httpx.Client) -> None:
    answer = desk.post("/score", json={"candidates": [{"ad": "a1"}, {"ad": "a2"}], "top_k": 2}).json()
    first, second = answer["feedback_tokens"]
    events = [
        {"token": first, "click": True},
        {"token": first, "shown": False},
        {"token": second, "click": False},
        {"token": second, "click": True},
        {"token": "nonsense", "click": True},
    ]
    told = desk.post("/feedback", json={"events": events})
    assert told.status_code == 202
    assert told.json() == {"accepted": 4, "outcomes": ["click", "repeated", "no_click", "click", "malformed"]}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"click":true}', 422),
        (b'{"token":"t","click":1}', 422),
        (b'{"token":"t","clicks":true}', 422),
        (b'{"events":[]}', 422),
        (b'{"events":[{"token":"t"}],"token":"t"}', 422),
        (msgspec.json.encode({"events": [{"token": "t"}] * 1001}), 422),
        (b" " * (5 * 1024 * 1024), 413),
    ],
)
def test_a_body_of_another_shape_is_refused(desk: httpx.Client, body: bytes, status: int) -> None:
    answer = desk.post("/feedback", content=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("packed", [False, True])
def test_without_a_ranking_every_candidate_has_a_token_and_none_counts_until_it_was_shown(
    desk: httpx.Client, packed: bool
) -> None:
    kind = "application/msgpack" if packed else "application/json"
    body = {"candidates": [{"ad": "a1"}, {"ad": "a2"}, {}]}
    answer = desk.post("/score", json=body, headers={"accept": kind}).content
    document = msgspec.msgpack.decode(answer) if packed else msgspec.json.decode(answer)
    tokens = [Keyring([SECRET.encode()]).read(token) for token in document["feedback_tokens"]]
    assert [(token.model, token.place, token.score, token.shown) for token in tokens] == [
        (MODEL_ID, place, pytest.approx(score, rel=1e-7), False) for place, score in enumerate(document["scores"])
    ]
    event = {"token": document["feedback_tokens"][1], "shown": True, "click": True}
    assert [desk.post("/feedback", json=event).json()["outcomes"] for _ in range(2)] == [["click"], ["repeated"]]


def test_an_answer_has_no_tokens_unless_it_is_drawn_and_feedback_is_off_without_a_secret(client: httpx.Client) -> None:
    assert "feedback_tokens" not in client.post("/score", json={"candidates": [{}], "top_k": 1}).json()
    answer = client.post("/feedback", json={"token": "t", "click": True})
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:problem-type:reaction:feedback-off")


def test_the_secret_is_in_no_log(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text(f"{SECRET.replace(' ', '-')}\nan-older-secret-to-be-forgotten\n")
    with serving(bundle, feedback_secret_file=file, log_level="debug") as server:
        token = Keyring([b"an-older-secret-to-be-forgotten"]).sign(MODEL_ID, int(time.time()), [(0, 0.5)], shown=True)
        answer = httpx.post(f"{server.url}/feedback", json={"token": token[0].decode(), "click": True})
    assert answer.json() == {"accepted": 1, "outcomes": ["click"]}
    assert "secret-" not in str(server.log).replace(str(file), "")


def test_feedback_of_a_version_counts_though_another_took_its_place_meanwhile(tmp_path: Path) -> None:
    store = build_store(tmp_path, "first", "second")
    settings = {"feedback_secret": SECRET, "feedback_ratio": 1, "feedback_window_seconds": 4, "idle_seconds": 0.1}

    def counts(model: str, event: str) -> float:
        start = "reaction_feedback_scored_total"
        labels = (f'event="{event}"', f'model="{model}"')
        return sum(
            count
            for name, count in scrape(server).items()
            if name.startswith(start) and all(label in name for label in labels)
        )

    with serving(store.root, workers=1, watch_seconds=0.1, **settings) as server:
        body = {"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES, "top_k": 2}
        first = [post(server, "/score", body)[1] for _ in range(3)]
        clicked = [post(server, "/feedback", {"token": first[0]["feedback_tokens"][0], "click": True})[0]]
        worker = workers_of(server)
        store.activate("second")
        wait_for(
            lambda: model_of(server) == "second" and not set(worker) & set(workers_of(server)), "the first is gone"
        )
        # On a very slow machine it is late by now; it is told so, and nothing is counted.
        clicked.append(post(server, "/feedback", {"token": first[1]["feedback_tokens"][0], "click": True})[0])
        assert {answer["model"] for answer in first} == {"first"}
        wait_for(lambda: counts("first", "impression") == 6, "the window of the first is over", 60)
        assert counts("first", "click") == clicked.count(202) > 0
