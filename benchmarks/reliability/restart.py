"""A rolling restart of two replicas behind a real balancer, under a steady load: how many requests fail."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.reliability.services import free_port, make_store, service
from benchmarks.reliability.steady import clients

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["BALANCERS", "restart_figures"]

_SECONDS: Final = 30.0
_CHECK_SECONDS: Final = 0.2
# Longer than a balancer takes to notice: three of its looks.
_DRAIN_SECONDS: Final = 1.0

# No retry of what was sent, so that nothing hides a loss; health checks as often as a rolling restart in seconds needs.
_HAPROXY: Final = """
global
    maxconn 1000
defaults
    mode http
    retries 0
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend scores
    bind 127.0.0.1:{port}
    default_backend replicas
backend replicas
    balance roundrobin
    option httpchk GET /readyz
    default-server check inter {check_ms} fall 1 rise 2
    {servers}
"""
# It has no health checks of its own: it learns from refused connections, and from the 503 of a replica that listens and
# reads its bundle. Scoring changes nothing, so what one refused may be asked of the other.
_NGINX: Final = """
daemon off;
worker_processes 1;
pid {place}/nginx.pid;
error_log {place}/nginx-error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    upstream replicas {{
        {servers}
        keepalive 16;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://replicas;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream error http_503 non_idempotent;
        }}
    }}
}}
"""
BALANCERS: Final = ("haproxy", "nginx")


def restart_figures(
    *, balancer: str, rounds: int, rate: float, drain_seconds: float = _DRAIN_SECONDS
) -> dict[str, float]:
    """Restart both replicas, one after the other, again and again.

    Args:
        balancer: One of `BALANCERS`, which is installed.
        rounds: How often each is restarted.
        rate: Requests of 20 candidates a second.
        drain_seconds: How long a replica is not ready before it takes nothing new.

    Returns:
        Figures by key.

    Raises:
        RuntimeError: A replica did not end with status 0.
    """
    with tempfile.TemporaryDirectory(prefix="restart-") as folder:
        place = Path(folder)
        store, bodies = make_store(place)
        ports = (free_port(), free_port())
        how: dict[str, Any] = {"workers": 1, "watch_seconds": 0, "drain_seconds": drain_seconds}
        with contextlib.ExitStack() as whole:
            replicas = [contextlib.ExitStack() for _ in ports]
            for port, replica in zip(ports, replicas, strict=True):
                whole.enter_context(replica)
                replica.enter_context(service(store.root, place, port=port, **how))
            port = whole.enter_context(_balancer(balancer, place, ports))
            with clients(("127.0.0.1", port), bodies, rate=rate) as seen:
                time.sleep(1.0)
                for _ in range(rounds):
                    for number, replica in enumerate(replicas):
                        replica.close()
                        replica.enter_context(service(store.root, place, port=ports[number], **how))
                        time.sleep(5 * _CHECK_SECONDS)  # the balancer has to see that it is there again
                time.sleep(1.0)
    return {
        "rolling_restarts": rounds * len(ports),
        "rolling_restart_requests": len(seen.seconds) + len(seen.failed),
        "rolling_restart_failed_requests": len(seen.failed),
        "rolling_restart_wrong_answers": len(seen.mixed),
    }


@contextlib.contextmanager
def _balancer(name: str, place: Path, ports: Sequence[int]) -> Iterator[int]:
    """Run a balancer in front of replicas; yields its port."""
    port = free_port()
    servers = {
        "haproxy": "\n    ".join(f"server replica{n} 127.0.0.1:{p}" for n, p in enumerate(ports)),
        "nginx": "\n        ".join(f"server 127.0.0.1:{p} fail_timeout=1s;" for p in ports),
    }[name]
    text = {"haproxy": _HAPROXY, "nginx": _NGINX}[name]
    config = place / f"{name}.conf"
    config.write_text(
        text.format(port=port, place=place, servers=servers, check_ms=int(_CHECK_SECONDS * 1e3)), encoding="utf-8"
    )
    binary = found(name)
    command = [binary, "-db", "-f", str(config)] if name == "haproxy" else [binary, "-c", str(config), "-p", str(place)]
    with (place / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_listening(port, place / f"{name}.log")
        yield port
    finally:
        process.terminate()
        process.wait()


def found(name: str) -> str:
    """Path of an installed balancer.

    Raises:
        FileNotFoundError: It is not installed.
    """
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is None:
        raise FileNotFoundError(f"{name}: expected it installed (Debian: apt-get install {name}), found none")
    return path


def _wait_listening(port: int, log: Path) -> None:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            time.sleep(3 * _CHECK_SECONDS)  # its first looks at the replicas
            return
        time.sleep(0.05)
    raise TimeoutError(f"expected a balancer at port {port}, got {log.read_text(encoding='utf-8')}")
