"""Requests in company: stage by stage, each with its own answer; answers in one write."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import numpy as np
from serving import ROW_CANDIDATES, ROW_CONTEXT, HandModel, Server

from service.edge.joined_writes import JoinedWrites


def test_requests_on_many_connections_at_once_get_the_answers_they_get_alone(
    server: Server, hand_model: HandModel
) -> None:
    def ask(number: int) -> None:
        with httpx.Client(base_url=server.url) as client:
            for turn in range(40):
                rows = ROW_CANDIDATES[: 1 + (number + turn) % 3]
                if (number + turn) % 5 == 0:
                    answer = client.post("/score", json={"context": ROW_CONTEXT, "candidates": [{"nope": 1}]})
                    assert answer.status_code == 422
                    continue
                request_id = f"{number}.{turn}"
                body = {"context": ROW_CONTEXT, "candidates": rows, "request_id": request_id}
                answer = client.post("/score", json=body)
                assert answer.status_code == 200
                assert answer.json()["request_id"] == answer.headers["x-request-id"] == request_id
                wanted = [hand_model.score(ROW_CONTEXT, row) for row in rows]
                np.testing.assert_allclose(answer.json()["scores"], wanted, atol=1e-6)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(ask, range(16)))


class NotingTransport(SimpleNamespace):
    """Says what is written to it."""

    def __init__(self) -> None:
        super().__init__(written=[], closed=False)

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True


def test_a_write_that_waits_leaves_with_the_next_and_is_never_lost() -> None:
    transport = NotingTransport()
    writes = JoinedWrites(transport)  # type: ignore[arg-type]
    writes.write(b"100-continue")
    writes.joining = True
    writes.write(b"head ")
    assert transport.written == [b"100-continue"]
    writes.write(b"body")
    writes.write(b"more")
    assert transport.written == [b"100-continue", b"head body", b"more"]
    writes.joining = True
    writes.write(b"head without body")
    writes.close()
    assert transport.written[-1] == b"head without body"
    assert transport.closed
    assert writes.written is transport.written  # whatever else it is asked for


def test_pipelined_requests_are_answered_whole_and_in_order(server: Server) -> None:
    bodies = [
        json.dumps({"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES, "request_id": f"r{number}"}).encode()
        for number in range(5)
    ]
    head = b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(b"".join(head % len(body) + body for body in bodies))
        received = b""
        while received.count(b"HTTP/1.1 200") < 5 or not received.endswith(b"}"):
            part = connection.recv(65536)
            assert part
            received += part
    answers = [part.partition(b"\r\n\r\n")[2] for part in received.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert [json.loads(answer)["request_id"] for answer in answers] == [f"r{number}" for number in range(5)]
