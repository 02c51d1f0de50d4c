"""A canary scores the requests whose routing key is in its share, no others, and costs nobody an answer."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
from processes import GOOD, count_all, wait_for, workers_of
from serving import ROOT, ROW_CANDIDATES, ROW_CONTEXT, Server, serving
from stores import SEEDS, add_version, build_store, expected_scores, flip, reloads

from service.feedback.tokens import Keyring
from service.trial.candidate import Candidate
from service.versions import trials

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a canary needs processes that share a socket")

KEYS = [f"user-{number}" for number in range(200)] + ["é", "x" * 256]
EXPECTED = expected_scores()
HOW: dict[str, Any] = {"workers": 2, "watch_seconds": 0.05, "idle_seconds": 0.2, "request_log_ratio": 0}
ONE = {**HOW, "workers": 1}


def expected_arm(key: str, share: float) -> str:
    """As the README says it."""
    return "second" if int(sha256(key.encode()).hexdigest()[:8], 16) < share * 2**32 else "first"


def versions(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "service", "versions", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def count(server: Server, name: str) -> float:
    return count_all(server).get(name, 0.0)


def wait_for_share(server: Server, share: float) -> None:
    wait_for(lambda: count(server, "reaction_canary_share") == share, f"share {share}", seconds=120)


def arm_of(client: httpx.Client, key: str | None, *, header: bool = False) -> str:
    """The version that answers, its scores being its own."""
    body = GOOD if key is None or header else {**GOOD, "routing_key": key}
    headers = [(b"x-routing-key", key.encode())] if header and key is not None else []
    answer = client.post("/score", json=body, headers=headers)
    document = answer.json()
    assert document["scores"] == pytest.approx(EXPECTED[document["model"]], abs=1e-6)
    assert answer.headers.get("x-model-version", document["model"]) == document["model"]
    name: str = document["model"]
    return name


def token_model(token: str) -> str:
    return Keyring([b"x" * 16]).read(token).model


def served_models(server: Server) -> list[str]:
    start = "reaction_model_info{"
    return [name.split('model="')[1].split('"')[0] for name in count_all(server) if name.startswith(start)]


def arms(server: Server, *, header: bool = False) -> dict[str, str]:
    """The version of every key; each on one of a few connections, so that both workers are met."""
    found = {}
    for number in range(4):
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for key in KEYS[number::4]:
                found[key] = arm_of(client, key, header=header)
    return found


def expected_arms(share: float) -> dict[str, str]:
    return {key: expected_arm(key, share) for key in KEYS}


def test_a_canary_scores_the_keys_in_its_share_in_every_worker_until_it_is_ended_or_promoted(tmp_path: Path) -> None:
    store = build_store(tmp_path, "first", "second")
    with serving(store.root, **HOW) as running:
        assert versions("canary", str(store.root), "second", "--share", "0.3") == "canary: second\n"
        wait_for_share(running, 0.3)
        assert arms(running) == expected_arms(0.3)
        assert arms(running, header=True) == expected_arms(0.3)
        with httpx.Client(base_url=running.url) as client:
            assert {arm_of(client, None) for _ in range(10)} == {"first"}
            packed = msgspec.msgpack.encode({**GOOD, "routing_key": KEYS[0]})
            answer = client.post("/score", content=packed, headers={"content-type": "application/msgpack"})
            assert msgspec.msgpack.decode(answer.content)["model"] == expected_arm(KEYS[0], 0.3)
            key = next(key for key, arm in expected_arms(0.3).items() if arm == "second")
            many = {"candidates": [{}] * 501, "routing_key": key}  # scored by a thread, and by the same version
            assert client.post("/score", json=many).json()["model"] == "second"
        in_canary = sum(arm == "second" for arm in expected_arms(0.3).values())
        first = in_canary * 2 + (expected_arm(KEYS[0], 0.3) == "second") + 1
        wait_for(
            lambda: count(running, 'reaction_canary_requests_total{arm="canary",model="second"}') == first, "counted"
        )
        assert count(running, 'reaction_canary_requests_total{arm="no_key",model="second"}') == 10
        assert count(running, 'reaction_canary_requests_total{arm="fell_back",model="second"}') == 0

        trials.put_on_trial(store, Candidate(name="second", mode="canary", share=0.6))
        wait_for_share(running, 0.6)
        more = arms(running)
        assert more == expected_arms(0.6)
        assert {key for key, arm in expected_arms(0.3).items() if arm == "second"} < {
            key for key, arm in more.items() if arm == "second"
        }
        assert "+ second" in versions("list", str(store.root))
    with serving(store.root, **HOW) as running:  # the same after a restart
        wait_for_share(running, 0.6)
        assert arms(running) == more
        assert versions("promote", str(store.root)) == "current: second\n"
        wait_for(lambda: set(arms(running).values()) == {"second"}, "it has all", seconds=120)
        assert (store.current(), store.tried()) == ("second", None)
    assert running.process.returncode == 0
    assert "Traceback" not in str(running.log)


def refused(server: Server, reason: str) -> float:
    return reloads(server, "trial_refused", reason)


def test_a_bad_canary_is_refused_for_its_reason_and_the_other_version_serves_on_with_the_next(tmp_path: Path) -> None:
    store = build_store(tmp_path, "first", "second", "third")
    flip(store.path("third") / "model.onnx")
    add_version(store, tmp_path, "golden_rows", golden_offset=0.01)
    with serving(store.root, **ONE) as running:
        workers = workers_of(running)
        for name, reason in (("third", "corrupt"), ("golden_rows", "golden_rows")):
            trials.put_on_trial(store, Candidate(name=name, mode="canary", share=1.0))
            wait_for(lambda: refused(running, reason) == 1, f"it is refused: {reason}", seconds=120)  # noqa: B023
            assert count(running, "reaction_trial_refused") == 1
            assert count(running, "reaction_deployed_refused") == 0
        # Written aside, as all do who write it: looked at while it is empty, the file would count as refused twice.
        (tmp_path / "aside").write_text('{"name":"second","mode":"canary","share":2}')
        (tmp_path / "aside").replace(store.root / "candidate.json")
        wait_for(lambda: refused(running, "no_version") == 1, "what is no candidate is refused")
        assert (count(running, "reaction_canary_share"), workers_of(running)) == (0, workers)
        assert set(arms(running).values()) == {"first"}
        trials.put_on_trial(store, Candidate(name="second", mode="canary", share=0.5))
        wait_for_share(running, 0.5)
        assert arms(running) == expected_arms(0.5)
        store.activate("golden_rows")
        wait_for(lambda: reloads(running, "refused", "golden_rows") == 1, "a bad version is refused", seconds=120)
        assert (count(running, "reaction_canary_share"), count(running, "reaction_trial_refused")) == (0.5, 0)
        assert arms(running) == expected_arms(0.5)


def test_what_a_canary_does_not_answer_the_other_does_and_it_is_taken_out_once_it_fails_often(tmp_path: Path) -> None:
    store = build_store(tmp_path, "first")
    add_version(store, tmp_path, "second", nan_above=100, seed=SEEDS["second"])
    many = {"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES * 40, "routing_key": "u"}
    with serving(store.root, **ONE, feedback_secret="x" * 16, feedback_ratio=1) as running:
        trials.put_on_trial(store, Candidate(name="second", mode="canary", share=1.0))
        wait_for_share(running, 1.0)
        assert set(arms(running).values()) == {"second"}
        with httpx.Client(base_url=running.url) as client:
            answer = client.post("/score", json={**GOOD, "routing_key": "u", "top_k": 1})
            assert token_model(answer.json()["feedback_tokens"][0]) == "second"
            for _ in range(12):
                answer = client.post("/score", json=many)
                assert (answer.status_code, answer.json()["model"]) == (200, "first")
                assert answer.json()["scores"] == pytest.approx(EXPECTED["first"] * 40, abs=1e-6)
            bad = client.post("/score", json={**many, "context": {"nonsense": 1}})
            assert (bad.status_code, bad.json()["where"]) == (422, "context.nonsense")
        wait_for(lambda: refused(running, "failed") == 1, "it is taken out")
        wait_for_share(running, 0)
        wait_for(lambda: set(served_models(running)) == {"first"}, "no worker holds it any more", seconds=120)
        assert set(arms(running).values()) == {"first"}
        fell_back = count(running, 'reaction_canary_requests_total{arm="fell_back",model="second"}')
        assert 10 <= fell_back <= 12
    assert "not finite" in str([line for line in running.log if line["event"] == "canary_failed"])
    assert running.process.returncode == 0
