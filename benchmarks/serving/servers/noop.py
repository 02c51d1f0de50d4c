"""The floor of the stack: raw ASGI that receives the body and returns as many bytes as the service's answer has.

`python -m benchmarks.serving.servers.noop PORT BYTES`: the web server, its event loop, its parser and its options are
those of `python -m service`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import uvicorn

from service.workers.sockets import listen

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


def noop(answer: bytes) -> ASGIApp:
    """An application that answers every request with these bytes once it has its body."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body", False):
            pass
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


def main(port: int, size: int) -> None:
    """Serve until SIGTERM."""
    config = uvicorn.Config(
        noop(b"x" * size),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
    with listen("127.0.0.1", port) as listener:
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
