"""A campaign of requests against a server: each is answered, none with a fault of the server's, and nothing leaks."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

import msgspec

from benchmarks.reliability.fuzz.grammar import DOORS, spoilt
from benchmarks.reliability.steady import is_closed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.reliability.fuzz.grammar import Sent

__all__ = ["Answers", "Client", "Target", "ask_all", "target"]

_SECONDS: Final = 30.0
_FAULT: Final = 500
_OK: Final = 200
_EVERY: Final = 250
_MOST_FINDINGS: Final = 50


@dataclass(frozen=True, slots=True)
class Target:
    """A server that is ready.

    Attributes:
        process: It, alone: one worker.
        port: Where it listens on the loopback.
    """

    process: subprocess.Popen[bytes]
    port: int

    def memory_bytes(self) -> int:
        """What it holds in memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Files and sockets that it has open."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())


@contextlib.contextmanager
def target(bundle: Path, log: Path) -> Iterator[Target]:
    """Start a server on a free port, and end it.

    Args:
        bundle: What it serves.
        log: File for its log.

    Raises:
        TimeoutError: It does not become ready.
    """
    settings = {"BUNDLE": bundle, "PORT": 0, "WORKERS": 1, "FEEDBACK_SECRET": "s" * 16, "FEEDBACK_RATIO": 1}
    settings["DRAIN_SECONDS"] = 0  # no balancer looks on
    clean = {name: value for name, value in os.environ.items() if not name.startswith("REACTION_")}
    environment = clean | {f"REACTION_{name}": str(value) for name, value in settings.items()}
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "service"], env=environment, stderr=file, stdout=file)
    try:
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end and process.poll() is None:
            events = [json.loads(line) for line in log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
            ports = [event["port"] for event in events if event["event"] == "listening"]
            if ports and any(event["event"] == "ready" for event in events):
                yield Target(process, ports[0])
                return
            time.sleep(0.02)
        raise TimeoutError(f"expected a server that is ready in {_SECONDS:g} s, got {log.read_text(encoding='utf-8')}")
    finally:
        process.terminate()
        process.wait()


@dataclass(slots=True)
class Answers:
    """What became of the requests.

    Attributes:
        inputs: Requests sent.
        statuses: Answers by kind of spoiling and status.
        findings: Seeds with what none may come to: a status of 500 or more, no answer, one that is no document or has
            scores that are none, another answer than before to the same good request, the server's end.
        counts: Of `fault` (500 or more), `crash` (no answer, or the server's end) and `wrong`.
        memory_growth: Memory at the end over that after a fifth of the requests.
        descriptor_growth: Open files at the end, less those then.
    """

    inputs: int = 0
    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    findings: list[tuple[int, str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    memory_growth: float = 1.0
    descriptor_growth: int = 0

    def find(self, seed: int, what: str, message: str) -> None:
        """Keep a finding."""
        self.counts[what] += 1
        if len(self.findings) < _MOST_FINDINGS:
            self.findings.append((seed, what, message[:300]))


class Client:
    """A connection that is made anew whenever the server closes it."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)

    def ask(self, sent: Sent) -> tuple[int, str, bytes]:
        """Status, media type and body."""
        headers = {name: value.encode("utf-8") for name, value in sent.headers.items()}
        if self._connection.sock is not None and is_closed(self._connection.sock):
            self.close()
        try:
            self._connection.request("POST", sent.path, sent.body, headers)
            answer = self._connection.getresponse()
            return answer.status, answer.headers.get("content-type", ""), answer.read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close it; the next question opens another one."""
        self._connection.close()


def ask_all(server: Target, seeds: Sequence[int]) -> Answers:
    """Send the request of each seed, and in between a good one whose answer is known.

    Args:
        server: Whom to ask.
        seeds: One request each.
    """
    answers, client = Answers(), Client(server.port)
    known = DOORS["score"](Random(1))  # noqa: S311
    expected = client.ask(known)[2]
    expected_scores = json.loads(expected)["scores"]
    before = (server.memory_bytes(), server.descriptors())
    for number, seed in enumerate(seeds):
        if number == len(seeds) // 5:
            before = (server.memory_bytes(), server.descriptors())
        sent = spoilt(seed)
        answers.inputs += 1
        try:
            status, media_type, body = client.ask(sent)
        except (OSError, http.client.HTTPException) as error:
            answers.find(seed, "crash", f"{sent.kind} {sent.path}: {error!r}")
            if server.process.poll() is not None:
                answers.find(seed, "crash", f"the server ended with {server.process.returncode}")
                return answers
            continue
        answers.statuses.setdefault(sent.kind, Counter())[status] += 1
        if status >= _FAULT:
            answers.find(seed, "fault", f"{sent.kind} {sent.path}: {status} {body[:200]!r}")
        elif complaint := _complaint(sent, status, media_type, body):
            answers.find(seed, "wrong", f"{sent.kind} {sent.path}: {status} {complaint}")
        if not number % _EVERY and json.loads(client.ask(known)[2])["scores"] != expected_scores:
            answers.find(seed, "wrong", "another answer to the same request")
    client.close()
    answers.memory_growth = server.memory_bytes() / before[0]
    answers.descriptor_growth = server.descriptors() - before[1]
    return answers


def _complaint(sent: Sent, status: int, media_type: str, body: bytes) -> str:
    """What is wrong with an answer that is no fault of the server's; empty if nothing is."""
    try:
        document = _document(media_type, body)
    except (ValueError, KeyError) as error:
        return f"{media_type}: {error!r} in {body[:100]!r}"
    if status == _OK and sent.path == "/score":
        scores = document.get("scores")
        if not scores or not all(math.isfinite(score) and 0.0 <= score <= 1.0 for score in scores):
            return f"scores {scores}"
    if status > _OK + 99 and "error" not in document and document.get("status") != status:
        return f"no problem document: {document}"
    return ""


def _document(media_type: str, body: bytes) -> Any:
    if media_type == "application/msgpack":
        return msgspec.msgpack.decode(body)
    if "json" in media_type:
        return json.loads(body)
    if media_type == "application/octet-stream":  # the protocol's JSON, then numbers
        return json.JSONDecoder().raw_decode(body.decode("latin-1"))[0]
    raise ValueError("another media type")
