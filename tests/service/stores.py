"""A store of versions whose scores are known by hand, and clients that check every answer against them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from processes import GOOD, count_all
from serving import ROW_CANDIDATES, ROW_CONTEXT, Server, build_bundle
from signatures import sign

from service.versions.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEEDS = {"first": 7, "second": 8, "third": 9}


def build_store(root: Path, *names: str, signed: bool = False, **how: float) -> Store:
    """A store of versions, of which the first is current; a version's name is its model's too."""
    store = Store(root / "store")
    for name in names:
        add_version(store, root, name, signed=signed, **how)
    store.activate(names[0])
    return store


def add_version(store: Store, root: Path, name: str, *, signed: bool = False, **how: Any) -> Path:
    build_bundle(root / name, **{"model_id": name, "seed": SEEDS.get(name, 1), **how})
    if signed:
        sign(root / name)
    store.add(root / name)
    return store.path(name)


def expected_scores() -> dict[str, list[float]]:
    from serving import HandModel

    return {
        name: [HandModel(seed).score(ROW_CONTEXT, candidate) for candidate in ROW_CANDIDATES]
        for name, seed in SEEDS.items()
    }


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def model_of(server: Server) -> str:
    answer = httpx.post(f"{server.url}/score", json=GOOD)
    assert answer.status_code == 200, answer.text
    name: str = answer.json()["model"]
    return name


def reloads(server: Server, outcome: str, reason: str = "") -> float:
    counts = count_all(server)
    return counts.get(f'reaction_reloads_total{{outcome="{outcome}",reason="{reason}"}}', 0.0)


@dataclass
class Load:
    """What clients have seen.

    Attributes:
        models: Answers, by the model that they say they are from, all scores being its own.
        wrong: Answers that were not those of the model they name.
        failed: Requests without an answer of scores.
    """

    models: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


@contextlib.contextmanager
def load(server: Server, clients: int = 3, pause: float = 0.004) -> Iterator[Load]:
    """Score all the time, each client on a connection that it keeps as long as the server lets it."""
    seen, end, expected = Load(), threading.Event(), expected_scores()

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            while not end.is_set():
                try:
                    answer = client.post("/score", json=GOOD)
                    answer.raise_for_status()
                except httpx.HTTPError as error:
                    seen.failed.append(repr(error))
                    continue
                document = answer.json()
                if document["scores"] == pytest.approx(expected[document["model"]], abs=1e-6):
                    seen.models[document["model"]] += 1
                else:
                    seen.wrong.append(answer.text)
                time.sleep(pause)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        end.set()
        for thread in threads:
            thread.join()
