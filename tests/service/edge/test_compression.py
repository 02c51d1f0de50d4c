"""gzip in and out: against the standard library's gzip, over real sockets, and bodies that hold more than they may."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import MODEL_ID, ROW_CANDIDATES, ROW_CONTEXT, Server

from service.admission import Gate
from service.edge.compression import compress, decompress, takes_gzip
from service.errors import InflatedBodyError, MalformedBodyError
from service.metrics import ServiceMetrics
from service.pipeline import Work
from service.routes.score import ScoreEndpoint
from service.settings import Settings

if TYPE_CHECKING:
    import httpx

REQUEST = {"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES, "request_id": "r"}
JSON = {"content-type": "application/json"}


@given(parts=st.lists(st.binary(max_size=200), min_size=1, max_size=4), spare=st.integers(0, 3))
def test_what_others_compress_is_read_in_one_member_or_several(parts: list[bytes], spare: int) -> None:
    whole = b"".join(parts)
    for body in (b"".join(map(gzip.compress, parts)), zlib.compress(whole)):
        assert decompress(body, len(whole) + spare) == whole
        if whole:
            with pytest.raises(InflatedBodyError):
                decompress(body, len(whole) - 1)


@given(content=st.binary(max_size=500))
def test_what_is_compressed_here_others_read(content: bytes) -> None:
    assert gzip.decompress(compress(content)) == content


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no gzip at all",
        gzip.compress(b"x" * 1000, mtime=0)[:-4],
        gzip.compress(b"x" * 1000, mtime=0)[:12],
        gzip.compress(b"x", mtime=0) + b"trailing",
        gzip.compress(b"x" * 100, mtime=0)[:-8] + bytes(8),
    ],
)
def test_a_damaged_body_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedBodyError, match="Content-Encoding"):
        decompress(body, 10_000)


@pytest.mark.parametrize(
    ("header", "takes"),
    [
        (b"gzip", True),
        (b"gzip, deflate, br", True),
        (b"br;q=1.0, GZIP;q=0.5", True),
        (b"*", True),
        (b"x-gzip", True),
        (b"gzip;q=0", False),
        (b"gzip; q=0.0, *", False),
        (b"*;q=0", False),
        (b"identity", False),
        (b"gzip;q=nonsense", False),
        (b"br, nogzip", False),
    ],
)
def test_an_answer_is_compressed_for_whoever_takes_that(header: bytes, takes: bool) -> None:
    assert takes_gzip(header) is takes


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", "deflate"])
def test_a_compressed_body_gets_the_scores_of_the_plain_one(client: httpx.Client, encoding: str) -> None:
    body = json.dumps(REQUEST).encode()
    plain = client.post("/score", content=body, headers=JSON).json()
    packed = zlib.compress(body) if encoding == "deflate" else gzip.compress(body, mtime=0)
    answer = client.post("/score", content=packed, headers=JSON | {"content-encoding": encoding})
    assert (answer.status_code, answer.json()) == (200, plain)


def infer_request(rows: int) -> dict[str, Any]:
    inputs = [
        {"name": "user", "shape": [1], "datatype": "BYTES", "data": ["u1"]},
        {"name": "ad", "shape": [rows], "datatype": "BYTES", "data": ["a1", "a2"] * (rows // 2)},
    ]
    return {"inputs": inputs}


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("/score", {"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES * 1000}),
        (f"/v2/models/{MODEL_ID}/infer", infer_request(3000)),
    ],
)
def test_a_long_answer_is_compressed_if_the_client_takes_it(
    client: httpx.Client, path: str, request_: dict[str, Any]
) -> None:
    def ask(accept: str) -> httpx.Response:
        return client.post(path, json=request_, headers={"accept-encoding": accept})

    plain, packed = ask("identity"), ask("gzip")
    assert "content-encoding" not in plain.headers
    assert (packed.headers["content-encoding"], packed.headers["vary"]) == ("gzip", "accept-encoding")
    assert int(packed.headers["content-length"]) < len(plain.content)
    for member in ("scores", "outputs"):
        assert packed.json().get(member) == plain.json().get(member)
    if path == "/score":
        assert len(packed.json()["scores"]) == 3000


def test_a_short_answer_is_sent_as_it_is(client: httpx.Client) -> None:
    answer = client.post("/score", json=REQUEST, headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("path", ["/score", f"/v2/models/{MODEL_ID}/infer"])
def test_a_body_that_holds_more_than_a_body_may_is_refused_before_it_is_inflated(
    client: httpx.Client, path: str
) -> None:
    bomb = gzip.compress(b" " * (512 << 20), 9)  # half a megabyte that holds half a gigabyte
    answer = client.post(path, content=bomb, headers=JSON | {"content-encoding": "gzip"})
    assert answer.status_code == 413
    assert "inflated" in answer.text
    assert client.post("/score", json=REQUEST).status_code == 200


@pytest.mark.parametrize("path", ["/score", f"/v2/models/{MODEL_ID}/infer"])
def test_a_body_that_is_not_what_its_header_says_is_refused(client: httpx.Client, path: str) -> None:
    answer = client.post(path, content=b'{"candidates":[{}]}', headers=JSON | {"content-encoding": "gzip"})
    assert answer.status_code == 400
    assert "Content-Encoding" in answer.text


def test_a_body_of_many_small_members_is_refused_after_a_few() -> None:
    assert decompress(gzip.compress(b"x", mtime=0) * 64, 100) == b"x" * 64
    with pytest.raises(MalformedBodyError, match="more than 64 parts"):
        decompress(gzip.compress(b"", mtime=0) * 100_000, 1 << 22)


def test_no_more_is_inflated_than_a_body_may_have() -> None:
    bomb = gzip.compress(bytes(64 << 20), 9)
    tracemalloc.start()
    try:
        with pytest.raises(InflatedBodyError):
            decompress(bomb, 1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_an_encoding_on_top_of_another_is_refused_however_it_is_written(server: Server) -> None:
    body = gzip.compress(json.dumps(REQUEST).encode())
    for encodings in ([b"gzip, identity"], [b"gzip", b"identity"], [b"identity", b"gzip"]):
        lines = b"".join(b"content-encoding: %b\r\n" % encoding for encoding in encodings)
        head = b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % len(
            body
        )
        with socket.create_connection(server.address, timeout=10) as connection:
            connection.sendall(head + lines + b"\r\n" + body)
            assert connection.recv(100).startswith(b"HTTP/1.1 415")


@pytest.mark.parametrize("inflate_to", [None, 1 << 20])
def test_a_compressed_body_never_holds_up_the_event_loop(inflate_to: int | None) -> None:
    ran_in: list[threading.Thread] = []

    def run(work: Work) -> None:
        ran_in.append(threading.current_thread())
        work.scores = np.zeros(1, np.float32)

    async def ask(runtime: Any, work: Work) -> None:
        pipeline: Any = SimpleNamespace(run=run)
        head: Any = SimpleNamespace(length=5, compressed=inflate_to is not None, deadline_seconds=None, low=False)
        terms = runtime.gate.look(head, long=head.compressed)
        await ScoreEndpoint(runtime)._run(pipeline, work, terms, {}, None)

    with ThreadPoolExecutor(1) as workers:
        settings, metrics = Settings(bundle="b"), ServiceMetrics()
        runtime = SimpleNamespace(
            settings=settings,
            gate=Gate(workers, 1, 100, 60.0, metrics),
            metrics=metrics,
            recorder=None,
            feed=None,
            tracer=None,
        )
        work = Work(b"short", request_id="r", packed=False, answer_packed=False)
        work.inflate_to = inflate_to
        asyncio.run(ask(runtime, work))
    assert (ran_in[0] is threading.main_thread()) == (inflate_to is None)
