"""Protocols of connections by themselves, with the service behind them and a stand-in for the transport."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from serving import ROW_CANDIDATES, ROW_CONTEXT

from service.app import create_app
from service.server import server_config
from service.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from service.runtime import Runtime

GOOD = json.dumps({"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES}).encode()
HEAD = b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n"


async def ready(runtime: Runtime) -> None:
    runtime.start()
    while runtime.stage == "starting":  # noqa: ASYNC110 - it is told to no event
        await asyncio.sleep(0.01)


async def serving_protocols(bundle: Path, **given: Any) -> tuple[Callable[[], Any], SimpleNamespace]:
    """What makes the protocol of a connection, and what happens to the application."""
    app = create_app(Settings(bundle=bundle, **given))
    facts = SimpleNamespace(seen=0, app=app, state=None)

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        facts.seen += 1
        await app(scope, receive, send)

    await ready(app.runtime)
    config = server_config(app, app.runtime.settings)
    config.load()
    config.loaded_app = counting
    facts.state = SimpleNamespace(total_requests=0, connections=set(), tasks=set(), default_headers=[(b"date", b"now")])
    make: Any = config.http_protocol_class
    return lambda: make(config=config, server_state=facts.state, app_state={}), facts


class Transport:
    """Keeps what is written to it until it closes."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        if not self.closing:
            self.written.append(data)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_extra_info(self, _name: str, default: Any = None) -> Any:
        return default


def connected(make: Callable[[], Any]) -> tuple[Any, Transport]:
    protocol, transport = make(), Transport()
    protocol.connection_made(transport)
    return protocol, transport
