"""Spoilt requests are answered, none with a fault, and good ones as before; the short profile."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from benchmarks.reliability.fuzz.bundle import write_small_bundle
from benchmarks.reliability.fuzz.documented import PHASES, MissingToolError, hold_to_document
from benchmarks.reliability.fuzz.grammar import DOORS, Sent, spoilt
from benchmarks.reliability.fuzz.requests import Client, Target, _complaint, ask_all, target


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    place = tmp_path_factory.mktemp("fuzz")
    write_small_bundle(place / "small")
    with target(place / "small", place / "log") as started:
        yield started


def test_spoilt_requests_are_answered_and_none_with_a_fault(server: Target) -> None:
    answers = ask_all(server, range(800))
    assert answers.findings == []
    assert answers.inputs == sum(sum(statuses.values()) for statuses in answers.statuses.values()) == 800
    together: Counter[int] = sum(answers.statuses.values(), Counter())
    assert together.keys() >= {200, 202, 400, 403, 404, 405, 413, 415, 422}
    assert answers.descriptor_growth <= 1


def test_the_request_of_a_seed_is_the_same_whatever_was_drawn_before() -> None:
    seeds = range(1500)
    assert [spoilt(seed) for seed in seeds] == [spoilt(seed) for seed in reversed(seeds)][::-1]


@pytest.mark.parametrize("door", [name for name in DOORS if name != "feedback"])
def test_a_door_scores_requests_that_are_not_spoilt(server: Target, door: str) -> None:
    client = Client(server.port)
    statuses = Counter(client.ask(DOORS[door](Random(seed)))[0] for seed in range(20))
    client.close()
    assert statuses[200] > 10, statuses


@pytest.mark.parametrize(
    ("status", "kind", "document"),
    [
        (200, "application/json", {"scores": []}),
        (200, "application/json", {"scores": [2.0]}),
        (200, "application/json", {}),
        (422, "application/problem+json", {"status": 400}),
        (422, "text/plain", {"status": 422}),
    ],
)
def test_an_answer_that_is_none_is_found(status: int, kind: str, document: object) -> None:
    sent = Sent("/score", b"", {})
    assert _complaint(sent, status, kind, json.dumps(document).encode())
    assert not _complaint(sent, 422, "application/problem+json", b'{"status":422}')
    assert not _complaint(sent, 200, "application/json", b'{"scores":[0.5]}')


def test_a_server_that_ends_is_found(tmp_path: Path) -> None:
    class Deadly(list[int]):
        """Seeds on the way through which the server is killed."""

        def __iter__(self) -> Iterator[int]:
            for number, seed in enumerate(super().__iter__()):
                if number == 5:
                    server.process.kill()
                    server.process.wait()
                yield seed

    write_small_bundle(tmp_path / "small")
    with target(tmp_path / "small", tmp_path / "log") as server:
        answers = ask_all(server, Deadly(range(10)))
    assert answers.inputs == 6
    assert answers.counts == {"crash": 2}
    assert answers.findings[-1] == (5, "crash", "the server ended with -9")


def test_answers_keep_to_the_openapi_document(server: Target) -> None:
    try:
        held = hold_to_document(server.port, examples=2, seed=0, phases=PHASES[:2])
    except MissingToolError as error:
        pytest.skip(str(error))
    assert not held.failed, held.output
    assert held.cases > 100
