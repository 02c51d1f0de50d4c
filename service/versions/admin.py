"""The admin API: what is served, take up what is deployed, go back; over a Unix socket of its own.

    curl --unix-socket admin.sock http://admin/status
    curl --unix-socket admin.sock -X POST 'http://admin/reload?version=clicks-2&wait_seconds=60'
    curl --unix-socket admin.sock -X POST 'http://admin/rollback?wait_seconds=60'
    curl --unix-socket admin.sock -X POST 'http://admin/canary?version=clicks-3&share=0.05&wait_seconds=60'
    curl --unix-socket admin.sock -X POST 'http://admin/shadow?version=clicks-3&tolerance=0.01'
    curl --unix-socket admin.sock -X POST 'http://admin/promote'     # or end

Whoever scores never meets it: it is no port, and who may use it is whoever may write to the socket's file, its owner
alone. It runs on threads of the supervisor, which scores nothing; all it asks for is done by the supervisor's own.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from queue import Empty, SimpleQueue
from socketserver import ThreadingMixIn, UnixStreamServer
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from service.logging import get_logger
from service.trial.candidate import Candidate, Mode
from service.versions import trials
from service.versions.rollout import GOOD_OUTCOMES
from service.versions.store import Store, StoreError, is_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from service.workers.supervisor import Supervisor

__all__ = ["Admin", "AdminError"]

_ANSWER_SECONDS: Final = 10.0  # of the supervisor, which does nothing that takes long
_LONGEST_WAIT_SECONDS: Final = 600.0
_LOOK_SECONDS: Final = 0.05
_BACKLOG: Final = 16

_log: Final = get_logger("service.versions.admin")


class AdminError(Exception):
    """What was asked for cannot be done.

    Args:
        status: Of the answer.
        detail: What was expected and what came.
    """

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Admin:
    """What the admin API does.

    Args:
        supervisor: Whose versions these are.
        bundle: A bundle, or a store of them.
    """

    def __init__(self, supervisor: Supervisor, bundle: Path) -> None:
        self._supervisor = supervisor
        self._bundle = bundle

    def serve(self, path: Path) -> UnixStreamServer:
        """Answer on a Unix socket, on threads that end with the process; `close` it at the end.

        Raises:
            OSError: The socket cannot be made, or another process answers on it.
        """
        _clear(path)
        server = _Server(str(path), self)
        threading.Thread(target=server.serve_forever, name="admin", daemon=True).start()
        return server

    def status(self) -> dict[str, Any]:
        """What is served, what is to be, how the last change ended, and every worker."""
        return self._ask(self._supervisor.status)

    def reload(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Take up what is deployed, also what was refused before.

        Args:
            query: `version`, to deploy this version of the store first; `wait_seconds`: return once that has ended, or
                after so long.
        """
        version = _version(query) if "version" in query else None
        return self._change(lambda: None if version is None else self._store().activate(version), _seconds(query))

    def rollback(self, wait_seconds: float) -> dict[str, Any]:
        """Deploy the last proven version that is not current, or the one before the current one, and take it up."""
        return self._change(self._store().rollback, wait_seconds)

    def put_on_trial(self, mode: Mode, query: Mapping[str, str]) -> dict[str, Any]:
        """Have a version tried beside the current one.

        Args:
            mode: How.
            query: `version`; `share` of a canary, `tolerance` of a shadow, `wait_seconds` as of `reload`.
        """
        share, tolerance = _number(query, "share", 1.0, 0.05), _number(query, "tolerance", 1.0, 0.01)
        candidate = Candidate(name=_version(query), mode=mode, share=share, tolerance=tolerance)
        found = self._change(lambda: trials.put_on_trial(self._store(), candidate), _seconds(query))
        if found["trial_refused"] is not None:
            raise AdminError(HTTPStatus.CONFLICT, found["trial_refused"])
        return found

    def end_trial(self, wait_seconds: float) -> dict[str, Any]:
        """Try nothing any more."""
        return self._change(lambda: trials.end_trial(self._store()), wait_seconds)

    def promote(self, wait_seconds: float) -> dict[str, Any]:
        """Deploy the version on trial, and take it up; not one that was refused."""

        def look() -> dict[str, Any]:
            self._supervisor.rollout.look()
            return self._supervisor.status()

        refused = self._ask(look)["trial_refused"]
        if refused is not None:
            raise AdminError(HTTPStatus.CONFLICT, refused)
        return self._change(lambda: trials.promote(self._store()), wait_seconds)

    def _store(self) -> Store:
        if not is_store(self._bundle):
            raise AdminError(HTTPStatus.CONFLICT, f"{self._bundle}: expected a store of versions, got one bundle")
        return Store(self._bundle)

    def _change(self, deploy: Callable[[], object], wait_seconds: float) -> dict[str, Any]:
        try:
            deploy()
        except (OSError, StoreError) as error:
            raise AdminError(HTTPStatus.CONFLICT, str(error)) from error

        def look() -> dict[str, Any]:
            before = self._supervisor.rollout.ended
            self._supervisor.rollout.look(again=True)
            return {"before": before, **self._supervisor.status()}

        found = self._ask(look)
        before = found.pop("before")
        until = monotonic() + min(wait_seconds, _LONGEST_WAIT_SECONDS)
        while found["changing"] and monotonic() < until:
            sleep(_LOOK_SECONDS)
            found = self.status()
        if found["changes"] > before and found["last_change"]["outcome"] not in GOOD_OUTCOMES:
            last = found["last_change"]
            raise AdminError(HTTPStatus.CONFLICT, f"{last['version']}: {last['outcome']}: {last['detail']}")
        return found

    def _ask(self, what: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Have the supervisor's thread do something, and return what it says."""
        answers: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._supervisor.ask(lambda: answers.put(what()))
        try:
            return answers.get(timeout=_ANSWER_SECONDS)
        except Empty:
            raise AdminError(HTTPStatus.SERVICE_UNAVAILABLE, "the service is stopping") from None


class _Handler(BaseHTTPRequestHandler):
    """One request; its connection ends with it."""

    server: _Server
    timeout = 10.0  # of a read
    server_version = "reaction-admin"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer({"/status": lambda _: self.server.admin.status()})

    def do_POST(self) -> None:
        self._answer(
            {
                "/reload": self.server.admin.reload,
                "/rollback": lambda query: self.server.admin.rollback(_seconds(query)),
                "/canary": lambda query: self.server.admin.put_on_trial("canary", query),
                "/shadow": lambda query: self.server.admin.put_on_trial("shadow", query),
                "/promote": lambda query: self.server.admin.promote(_seconds(query)),
                "/end": lambda query: self.server.admin.end_trial(_seconds(query)),
            }
        )

    def _answer(self, does: dict[str, Callable[[dict[str, str]], dict[str, Any]]]) -> None:
        url = urlsplit(self.path)
        try:
            if url.path not in does:
                known = "GET /status, POST /reload, /rollback, /canary, /shadow, /promote, /end"
                raise AdminError(HTTPStatus.NOT_FOUND, f"expected {known}, got {self.command} {url.path}")  # noqa: TRY301
            query = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
            status, document = HTTPStatus.OK, does[url.path](query)
            if document["changing"] and self.command == "POST":
                status = HTTPStatus.ACCEPTED
        except AdminError as error:
            status, document = error.status, {"title": error.status.phrase, "detail": str(error)}
        if self.command == "POST":
            _log.info("admin_asked", request=self.path, status=status)
        self._send(status, document)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """What the base class refuses, as a problem document: other methods, and what is no HTTP."""
        status, detail = HTTPStatus(code), message or HTTPStatus(code).phrase
        if status is HTTPStatus.NOT_IMPLEMENTED:
            status, detail = HTTPStatus.METHOD_NOT_ALLOWED, f"expected GET or POST, got {self.command}"
        self._send(status, {"title": status.phrase, "detail": detail})

    def _send(self, status: HTTPStatus, document: dict[str, Any]) -> None:
        body = json.dumps(document, indent=1).encode() + b"\n"
        self.send_response(status)
        self.send_header("content-type", "application/json" if status < HTTPStatus.BAD_REQUEST else _PROBLEM)
        self.send_header("content-length", str(len(body)))
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("allow", "GET, POST")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def address_string(self) -> str:
        """A Unix socket's client has no address."""
        return "admin"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing: what changes something is logged as an event."""


_PROBLEM: Final = "application/problem+json"


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    request_queue_size = _BACKLOG

    def __init__(self, path: str, admin: Admin) -> None:
        self.admin = admin
        super().__init__(path, _Handler)

    def server_bind(self) -> None:
        before = os.umask(0o177)  # its owner's from the first moment on
        try:
            super().server_bind()
        finally:
            os.umask(before)

    def server_close(self) -> None:
        super().server_close()
        Path(str(self.server_address)).unlink(missing_ok=True)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - the base class's
        """A client that went away, or sent what is no HTTP, is nobody's fault."""
        _log.warning("admin_request_failed", exc_info=True)


def _version(query: Mapping[str, str]) -> str:
    if not query.get("version"):
        raise AdminError(HTTPStatus.BAD_REQUEST, "version: expected the name of a version, got none")
    return query["version"]


def _seconds(query: Mapping[str, str]) -> float:
    return _number(query, "wait_seconds", _LONGEST_WAIT_SECONDS, 0.0)


def _number(query: Mapping[str, str], name: str, most: float, default: float) -> float:
    text = query.get(name, str(default))
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0.0 <= number <= most:
        raise AdminError(HTTPStatus.BAD_REQUEST, f"{name}: expected 0 to {most:g}, got {text[:100]!r}")
    return number


def _clear(path: Path) -> None:
    """Remove a socket that nobody answers on any more, left by a process that was killed."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(f"{path}: expected no file or a socket, got something else")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise FileExistsError(f"{path}: expected a socket that nobody answers on, got one of a running process")
