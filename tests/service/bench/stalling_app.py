"""A small ASGI application that stands still now and then, for tests of the load tool.

`STALLS` lists "start:length" in seconds from the first request, the start being when the next request comes after it.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

STALLS = [tuple(map(float, stall.split(":"))) for stall in os.environ.get("STALLS", "").split(",") if stall]
ANSWER = json.dumps({"model": "m", "request_id": "r", "scores": [0.5, 0.25]}).encode()
_state: dict[str, Any] = {"first": None, "left": list(STALLS)}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    while (await receive()).get("more_body"):
        pass
    now = time.monotonic()
    if scope["path"] == "/restart":  # what is sent before the load does not count
        _state.update(first=None, left=list(STALLS))
    elif _state["first"] is None:
        _state["first"] = now
    elif _state["left"] and now - _state["first"] >= _state["left"][0][0]:
        time.sleep(_state["left"].pop(0)[1])  # noqa: ASYNC251 - all requests are to stand still
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})
