"""What a process does before it takes its first connection: it answers some requests of its own, from end to end.

Code that has never run is slow: the interpreter has not specialised it, and neither it nor what it reads is in a cache.
A process that takes another's place would be slow to exactly the clients that have to connect anew to it.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

import msgspec

from service.pipeline import Work
from service.routes.score import PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.bundle import GoldenRow
    from service.edge.fast_lane import FastLane
    from service.runtime import Model, Runtime

__all__ = ["warm_up"]

_CONNECTIONS: Final = 12
_REQUESTS: Final = 4  # over each
_CANDIDATES: Final = 16
# Others serve meanwhile: they wait for one request at most.
_PAUSE_SECONDS: Final = 0.001
_ANSWER_SECONDS: Final = 5.0
_READ_BYTES: Final = 1 << 16
_HEADERS: Final = ((b"host", b"127.0.0.1"), (b"content-type", b"application/json"))


async def warm_up(make_protocol: Callable[[], asyncio.Protocol], lane: FastLane, runtime: Runtime) -> None:
    """Answer golden rows over connections from nobody; not counted, logged or recorded.

    Where the lane would not take them (keys are asked for, requests share calls) they go through the stages alone,
    since whatever goes the ordinary way is counted.

    Args:
        make_protocol: Makes what serves a connection.
        lane: Where usual requests are answered.
        runtime: The process's state.
    """
    model = runtime.model
    if model is None or model.canary is not None:
        return
    most = min(_CANDIDATES, runtime.settings.inline_candidates)  # more would go to other threads
    bodies = [body for body in _bodies(model, most) if len(body) <= lane.most_bytes]
    if lane.admit(b"POST", PATH.encode(), [*_HEADERS], keep_alive=True) is None:
        for n in range(_CONNECTIONS * _REQUESTS if bodies else 0):
            model.pipeline.run(Work(bodies[n % len(bodies)], request_id="warm", packed=False, answer_packed=False))
            await asyncio.sleep(_PAUSE_SECONDS)
        return
    wires = [_head(body) + body for body in bodies]
    with lane.uncounted():
        for number in range(_CONNECTIONS if wires else 0):
            requests = [wires[n % len(wires)] for n in range(number, number + _REQUESTS)]
            try:
                await asyncio.wait_for(_ask(make_protocol, requests), _ANSWER_SECONDS)
            except (OSError, TimeoutError):
                return  # no client was there; it serves without


def _bodies(model: Model, most: int) -> list[bytes]:
    """One candidate, and several."""
    rows: Sequence[GoldenRow] = model.scorer.bundle.golden[:most]
    candidates = [row.candidate for row in rows]
    return [
        msgspec.json.encode({"context": row.context, "candidates": chosen})
        for row in rows[:4]
        for chosen in (candidates[:1], candidates)
    ]


def _head(body: bytes) -> bytes:
    lines = [b"POST %b HTTP/1.1" % PATH.encode(), *(b"%b: %b" % header for header in _HEADERS)]
    return b"\r\n".join([*lines, b"content-length: %d" % len(body), b"", b""])


async def _ask(make_protocol: Callable[[], asyncio.Protocol], requests: Sequence[bytes]) -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours:
        for end in (ours, theirs):
            end.setblocking(False)
        transport, _ = await loop.connect_accepted_socket(make_protocol, theirs)
        try:
            for request in requests:
                await loop.sock_sendall(ours, request)
                await loop.sock_recv(ours, _READ_BYTES)
                await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            transport.close()
