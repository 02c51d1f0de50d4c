"""The listening socket: bound once, by whichever process is started first."""

from __future__ import annotations

import socket
from typing import Final

__all__ = ["BACKLOG", "listen"]

BACKLOG: Final = 2048


def listen(host: str, port: int) -> socket.socket:
    """Bind before anything is loaded: a taken port is told at once, and early clients wait instead of being refused."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
    )[0]
    # The protocol is stated, not 0: only then does asyncio turn off Nagle's algorithm on accepted connections.
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
