"""The admin API: on a Unix socket of its own, and nowhere else."""

from __future__ import annotations

import socket
import stat
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from processes import is_alive, workers_of
from serving import Server, serving
from stores import build_store, flip, model_of

from service.versions.admin import _clear

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a Unix socket")

TRIED = {"version": "first", "mode": "canary", "share": 0.25}
WAIT = {"wait_seconds": 100}


def asked(path: Path, method: str, url: str, **query: object) -> tuple[int, dict[str, Any]]:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=120) as client:
        answer = client.request(method, f"http://admin{url}", params={name: str(it) for name, it in query.items()})
    return answer.status_code, answer.json()


def test_a_version_is_loaded_refused_and_taken_back_by_the_admin_api(tmp_path: Path) -> None:
    store, path = build_store(tmp_path, "first", "second", "third"), tmp_path / "admin.sock"
    flip(store.path("third") / "model.onnx")
    with serving(store.root, watch_seconds=0, admin_socket=path) as running:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        status, found = asked(path, "GET", "/status")
        assert (status, found["serves"], found["changing"], found["changes"]) == (200, "first", False, 0)
        assert [(w["version"], w["role"], w["ready"]) for w in found["workers"]] == [("first", "worker", True)]
        assert [w["process"] for w in found["workers"]] == workers_of(running)

        status, found = asked(path, "POST", "/reload", version="second", **WAIT)
        assert (status, found["serves"], model_of(running)) == (200, "second", "second")
        assert found["last_change"]["outcome"] == "loaded"

        status, found = asked(path, "POST", "/reload", version="third", **WAIT)
        assert (status, found["title"]) == (409, "Conflict")
        assert found["detail"].startswith("third: refused: ")
        assert "expected SHA-256" in found["detail"]
        assert asked(path, "GET", "/status")[1]["deployed_refused"] is True
        assert (store.current(), model_of(running)) == ("third", "second")

        status, found = asked(path, "POST", "/rollback", **WAIT)
        assert (status, found["serves"], found["deployed_refused"]) == (200, "second", False)
        assert store.current() == "second"

        status, found = asked(path, "POST", "/canary", version="first", share=0.25, **WAIT)
        assert (status, found["serves"], found["trial"], found["share"]) == (200, "second", TRIED, 0.25)
        assert [(w["version"], w["canary"]) for w in found["workers"] if w["role"] == "worker"] == [("second", "first")]
        status, found = asked(path, "POST", "/canary", version="third", share=0.5, **WAIT)
        assert (status, found["detail"][:15]) == (409, "third: refused:")
        assert asked(path, "POST", "/canary", version="first", share=2)[0] == 400
        assert asked(path, "POST", "/canary", version="second")[0] == 409
        status, found = asked(path, "POST", "/end", **WAIT)
        assert (status, found["trial"], found["trial_refused"]) == (200, None, None)
        assert asked(path, "POST", "/promote")[0] == 409

        assert asked(path, "POST", "/reload", version="none")[0] == 409
        assert asked(path, "POST", "/reload", wait_seconds="long")[0] == 400
        assert asked(path, "GET", "/reload")[0] == 404
        assert all(httpx.request(m, f"{running.url}{u}").status_code == 404 for m, u in EVERYTHING), "not on the port"
        with socket.socket(socket.AF_UNIX) as rude:
            rude.connect(str(path))
            rude.sendall(b"\0" * 10 + b"\r\n\r\n")
        assert asked(path, "GET", "/status")[0] == 200
    assert not path.exists()
    assert [line["status"] for line in running.log if line["event"] == "admin_asked"] == [
        200,
        409,
        200,
        200,
        409,
        400,
        409,
        200,
        409,
        409,
        400,
    ]


def test_a_refused_trial_is_not_promoted_and_nothing_is_written(tmp_path: Path) -> None:
    store, path = build_store(tmp_path, "first", "second"), tmp_path / "admin.sock"
    flip(store.path("second") / "model.onnx")
    with serving(store.root, watch_seconds=0, admin_socket=path) as running:
        assert asked(path, "POST", "/canary", version="second", **WAIT)[0] == 409
        status, found = asked(path, "POST", "/promote", **WAIT)
        assert (status, found["detail"][:16]) == (409, "second: refused:")
        assert (store.current(), store.tried(), model_of(running)) == ("first", "second", "first")


def test_what_cannot_be_written_or_is_asked_wrongly_is_answered_as_a_problem(tmp_path: Path) -> None:
    store, path = build_store(tmp_path, "first", "second"), tmp_path / "admin.sock"
    store.activate("second")
    (store.root / ".lock").unlink()
    (store.root / ".lock").mkdir()  # who is root may write to what is read-only: so nobody can
    with serving(store.root, watch_seconds=0.05, admin_socket=path) as running:
        for url, query in (("/rollback", {}), ("/reload", {"version": "first"})):
            status, found = asked(path, "POST", url, **query)
            assert (status, "Is a directory" in found["detail"]) == (409, True)
        (store.root / "aside").symlink_to("versions/first")
        (store.root / "aside").replace(store.root / "current")
        assert asked(path, "POST", "/reload", **WAIT)[1]["serves"] == "first"
        (store.root / ".lock").rmdir()
        (store.root / "candidate.json").mkdir()
        for url in ("/promote", "/end"):
            assert asked(path, "POST", url)[0] == 409
        for url, query in (("/reload", {"version": ""}), ("/canary", {"version": ""}), ("/shadow", {})):
            status, found = asked(path, "POST", url, **query)
            assert (status, found["detail"]) == (400, "version: expected the name of a version, got none")
        for method in ("PUT", "DELETE", "HEAD", "PATCH"):
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
                answer = client.request(method, "http://admin/status")
            assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")
            assert answer.headers["allow"] == "GET, POST"
            assert method == "HEAD" or answer.json()["detail"] == f"expected GET or POST, got {method}"
        assert (store.current(), model_of(running)) == ("first", "first")
    (told,) = [line for line in running.log if line["event"] == "good_not_noted"]  # once, and not of each
    assert "Is a directory" in told["error"]
    assert "Traceback" not in str(running.log)


EVERYTHING = (("GET", "/status"), ("POST", "/reload"), ("POST", "/rollback"))


def test_a_socket_left_behind_is_replaced_and_one_in_use_is_not(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))  # and nobody listens any more
    with serving(bundle, admin_socket=path) as running:
        assert asked(path, "GET", "/status")[1]["serves"] == bundle.name
        status, found = asked(path, "POST", "/rollback")
        assert status == 409
        assert "expected a store of versions, got one bundle" in found["detail"]
        assert is_alive(running.process.pid)
        with serving(bundle, admin_socket=path) as other:
            assert httpx.get(f"{other.url}/readyz").status_code == 200, "it serves, and says what is wrong"
        assert "got one of a running process" in failed(other)
        assert asked(path, "GET", "/status")[0] == 200, "the first one's"


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    with pytest.raises(FileExistsError, match="expected no file or a socket, got something else"):
        _clear(tmp_path / "precious")
    assert (tmp_path / "precious").read_text() == "kept"


def failed(server: Server) -> str:
    (line,) = [line for line in server.log if line["event"] == "admin_failed"]
    return str(line["error"])
