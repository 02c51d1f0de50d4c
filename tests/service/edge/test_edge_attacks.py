"""What an attacker sends: requests that two readers would cut in two ways, and small bodies that become large ones."""

from __future__ import annotations

import gzip
import json
import re
import socket
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from processes import count_all
from serving import ROW_CANDIDATES, ROW_CONTEXT, Server, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

GOOD = json.dumps({"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES}).encode()
# A proxy that takes this for a part of a body forwards it unseen; who takes it for a request answers it.
HIDDEN = b"GET /model HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
BODY = b"0\r\n\r\n" + HIDDEN
LENGTH = b"Content-Length: %d" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked"


def post(*lines: bytes, body: bytes = BODY, line: bytes = b"POST /score HTTP/1.1", end: bytes = b"\r\n") -> bytes:
    return end.join([line, b"Host: x", b"Content-Type: application/json", *lines, b"", b""]) + body


AMBIGUOUS = {
    "length and chunks": post(LENGTH, CHUNKED),
    "chunks and length": post(CHUNKED, LENGTH),
    "two lengths": post(LENGTH, b"Content-Length: 5"),
    "one length twice": post(LENGTH, LENGTH),
    "list of lengths": post(b"Content-Length: 5, %d" % len(BODY)),
    "length with sign": post(b"Content-Length: +5"),
    "negative length": post(b"Content-Length: -1"),
    "hexadecimal length": post(b"Content-Length: 0x5"),
    "length of two numbers": post(b"Content-Length: 0 5"),
    "endless length": post(b"Content-Length: " + b"9" * 30),
    "empty length": post(b"Content-Length:"),
    "chunks twice": post(CHUNKED, CHUNKED),
    "chunks, then identity": post(CHUNKED + b", identity"),
    "identity after chunks": post(CHUNKED, b"Transfer-Encoding: identity"),
    "unknown coding": post(b"Transfer-Encoding: xchunked"),
    "unknown coding and length": post(b"Transfer-Encoding: xchunked", LENGTH),
    "other coding": post(b"Transfer-Encoding: gzip"),
    "space before the coding's colon": post(b"Transfer-Encoding : chunked", LENGTH),
    "space before the length's colon": post(b"Content-Length : 5"),
    "coding after a tab": post(b"Transfer-Encoding:\tchunked", LENGTH),
    "coding after a vertical tab": post(b"Transfer-Encoding:\x0bchunked", LENGTH),
    "quoted coding": post(b'Transfer-Encoding: "chunked"', LENGTH),
    "folded coding": post(b"Transfer-Encoding:\r\n chunked", LENGTH),
    "folded length": post(b"X: y\r\n Content-Length: 5", LENGTH),
    "NUL in the coding": post(CHUNKED + b"\0", LENGTH),
    "NUL in a name": post(b"Transfer\0-Encoding: chunked", LENGTH),
    "name that is no ASCII": post(b"Transf\xc3\xa9r-Encoding: chunked", LENGTH),
    "lines that end in LF": post(b"Content-Length: 5", end=b"\n"),
    "CR in a value": post(b"X: y\r" + CHUNKED, LENGTH),
    "LF in a value": post(b"X: y\n" + CHUNKED, LENGTH),
    "line without a colon": post(b"nothing", b"Content-Length: 5"),
    "space in a name": post(b"X Y: z", b"Content-Length: 5"),
    "space before the line": post(b"Content-Length: 5", line=b" POST /score HTTP/1.1"),
    "coding before chunks": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n" + HIDDEN),
    "chunk size with 0x": post(CHUNKED, body=b"0x0\r\n\r\n" + HIDDEN),
    "chunk size with sign": post(CHUNKED, body=b"+0\r\n\r\n" + HIDDEN),
    "negative chunk size": post(CHUNKED, body=b"-1\r\n\r\n" + HIDDEN),
    "chunk size with space": post(CHUNKED, body=b"0 \r\n\r\n" + HIDDEN),
    "endless chunk size": post(CHUNKED, body=b"f" * 17 + b"\r\n\r\n" + HIDDEN),
    "chunk that ends in LF": post(CHUNKED, body=b"0\n\n" + HIDDEN),
    "chunk longer than its size": post(CHUNKED, body=b"1\r\nxx\r\n" + BODY),
    "chunk extension with LF": post(CHUNKED, body=b"0;a\nb\r\n\r\n" + HIDDEN),
    "trailer that ends in LF": post(CHUNKED, body=b"0\r\nx: y\n\r\n" + HIDDEN),
    "length as a trailer": post(CHUNKED, body=b"0\r\nContent-Length: 99\r\n\r\n" + HIDDEN),
    "chunks in HTTP/1.0": post(CHUNKED, line=b"POST /score HTTP/1.0"),
    "unknown version": post(b"Content-Length: 5", line=b"POST /score HTTP/1.2"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "HTTP/0.9": b"GET /model\r\n" + HIDDEN,
    "HTTP/0.9 with a header": b"GET /model\r\nHost: x\r\n\r\n" + HIDDEN,
    "HTTP/2.0 in lines": post(b"Content-Length: 5", line=b"POST /score HTTP/2.0"),
    "no host": b"GET /model HTTP/1.1\r\n\r\n" + HIDDEN,
    "two hosts": b"GET /model HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n" + HIDDEN,
    "two hosts in HTTP/1.0": b"GET /model HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n" + HIDDEN,
    "no host in the lane": post(b"Content-Length: %d" % len(GOOD), body=GOOD + HIDDEN).replace(b"Host: x\r\n", b"", 1),
    "tunnel": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN,
    "method in small letters": post(b"Content-Length: 5", line=b"post /score HTTP/1.1"),
}
# Odd, and yet to be read in one way: the body ends where its length says, and what follows is a request.
CLEAR = {
    "other name": post(b"Content_Length: 99", b"Content-Length: 5"),
    "length after spaces": post(b"Content-Length:    5  "),
    "chunk extension": post(CHUNKED, body=b"0;a=b\r\n\r\n" + HIDDEN),
    "trailer": post(CHUNKED, body=b"0\r\nX: 99\r\n\r\n" + HIDDEN),
    "chunks in capitals after spaces": post(b"Transfer-Encoding:   CHUNKED ", body=b"0\r\n\r\n" + HIDDEN),
    "zeros before a size": post(CHUNKED, body=b"000\r\n\r\n" + HIDDEN),
}


def hear(server: Server, wire: bytes, cut: int) -> bytes:
    """All that comes back, the wire sent in two parts."""
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(wire[:cut])
        connection.sendall(wire[cut:])
        received = b""
        while part := connection.recv(1 << 16):
            received += part
        return received


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", received)]


@pytest.fixture(scope="module")
def victim(bundle: Path) -> Iterator[Server]:
    with serving(bundle, request_log_ratio=0) as running:
        yield running
        assert running.stop() == 0
        assert not [line for line in running.log if line["event"] == "request_failed"]


def models_told(server: Server) -> float:
    return count_all(server).get('reaction_requests_total{route="/model",status="200"}', 0.0)


@pytest.mark.parametrize("first", [b"", post(b"Content-Length: %d" % len(GOOD), body=GOOD)], ids=["first", "second"])
def test_what_can_be_read_in_two_ways_is_refused_with_all_that_follows(victim: Server, first: bytes) -> None:
    before = models_told(victim)
    for name, wire in AMBIGUOUS.items():
        for cut in (len(wire), len(wire) - len(HIDDEN), 40):
            received = hear(victim, first + wire, len(first) + cut)
            assert statuses(received) == [200] * bool(first) + [400], name
            assert b"connection: close\r\n" in received
    assert models_told(victim) == before


@pytest.mark.parametrize("name", CLEAR)
def test_what_is_odd_but_clear_ends_where_it_says(victim: Server, name: str) -> None:
    before = models_told(victim)
    answered = statuses(hear(victim, CLEAR[name], 40))
    assert answered[0] in {400, 422}  # what was left for a body is no document
    assert answered[1:] == [200]
    assert models_told(victim) == before + 1


def test_only_a_client_of_before_hosts_may_name_none(victim: Server) -> None:
    assert statuses(hear(victim, b"GET /livez HTTP/1.0\r\n\r\n", 9)) == [200]


def peak_kib(server: Server) -> int:
    """Most memory of the server so far."""
    status = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0])


def bomb(mebibytes: int) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    part = bytes(1 << 20)
    return b"".join([*(compressor.compress(part) for _ in range(mebibytes)), compressor.flush()])


def test_a_body_that_would_inflate_without_end_takes_no_more_memory_than_a_body_may(victim: Server) -> None:
    url, headers = f"{victim.url}/score", {"content-type": "application/json", "content-encoding": "gzip"}
    bombs = [bomb(120), gzip.compress(b'{"candidates":[') + bomb(32), bomb(3) * 60, b'{"candidates":[{}]}' + bomb(1)]
    httpx.post(url, content=gzip.compress(b" " * (4 << 20)), headers=headers)  # as much as is allowed
    before = peak_kib(victim)
    for infer in (False, True):
        asked = url.replace("/score", "/v2/models/tiny-1/infer") if infer else url
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda body: httpx.post(asked, content=body, headers=headers), bombs * 2))  # noqa: B023
        assert [answer.status_code for answer in answers] == [413, 413, 413, 400] * 2
    assert peak_kib(victim) - before < 50 << 10  # 120 MiB are in one of them alone
    assert httpx.post(url, content=GOOD, headers={"content-type": "application/json"}).status_code == 200


NESTED = {
    "arrays": b"[" * 2_000_000,
    "objects": b'{"a":' * 500_000,
    "candidates": b'{"candidates":' + b"[" * 2_000_000,
    "a candidate": b'{"candidates":[{"ad":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}]}",
    "context": b'{"candidates":[{}],"context":{"user":' + b'{"a":' * 300_000 + b"1" + b"}" * 300_000 + b"}}",
    "beside": b'{"candidates":[{}],"x":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}",
    "tensors": b'{"inputs":[{"name":"ad","shape":[1],"datatype":"BYTES","data":' + b"[" * 1_000_000,
    "parameters": b'{"inputs":[],"parameters":{"a":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}}",
    "packed arrays": b"\x91" * 2_000_000,
    "packed maps": b"\x81\xa1a" * 1_000_000,
    "packed candidates": b"\x81\xaacandidates" + b"\x91" * 1_000_000,
}


@pytest.mark.parametrize("name", NESTED)
def test_a_body_nested_without_end_is_refused_and_the_process_lives(victim: Server, name: str) -> None:
    kind = "application/msgpack" if name.startswith("packed") else "application/json"
    for path in ("/score", "/v2/models/tiny-1/infer"):
        answer = httpx.post(f"{victim.url}{path}", content=NESTED[name], headers={"content-type": kind})
        assert answer.status_code in {400, 422}
        assert len(answer.content) < 2000
    assert victim.process.poll() is None
    assert httpx.post(f"{victim.url}/score", content=GOOD, headers={"content-type": "application/json"}).is_success
