"""API keys, against a real server: who is let in, where, and how keys change while it serves."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx
import pytest
from processes import wait_for
from serving import ROOT, ROW_CANDIDATES, ROW_CONTEXT, Server, environment, serving

from service.edge.api_keys import OPEN_PATHS, ApiKeys
from service.errors import UnauthorizedError
from service.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OLD, NEW, LISTED, NEXT = "old-key-0123456789", "new-key-0123456789", "listed-key-0123456789", "next-key-0123456789"
GOOD = {"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES}
UNAUTHORIZED = "urn:problem-type:reaction:unauthorized"


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(f"# two at once\n{OLD}  # going\n\n{NEW}\n")
    return path


@pytest.fixture(scope="module")
def locked(bundle: Path, keys_file: Path) -> Iterator[Server]:
    with serving(bundle, api_keys=f"{LISTED}, {NEXT}", api_keys_file=keys_file) as running:
        yield running


def ask(server: Server, **headers: str) -> httpx.Response:
    return httpx.post(
        f"{server.url}/score", json=GOOD, headers={name.replace("_", "-"): v for name, v in headers.items()}
    )


def test_without_a_key_only_probes_are_answered(locked: Server) -> None:
    with httpx.Client(base_url=locked.url) as client:
        assert {path: client.get(path).status_code for path in OPEN_PATHS} == dict.fromkeys(OPEN_PATHS, 200)
        answers = [client.get(path) for path in ("/model", "/metrics", "/docs", "/openapi.json", "/nowhere", "/livez/")]
        answers += [client.get(path) for path in ("/score", "//livez", "/livez%2f..%2fmodel", "/livez;/../model")]
        answers.append(client.post("/score", json=GOOD))
        for answer in answers:
            assert answer.status_code == 401, answer.url
            assert answer.headers["www-authenticate"] == 'Bearer realm="reaction"'
            assert answer.headers["content-type"] == "application/problem+json"
            assert (answer.json()["type"], answer.json()["got"]) == (UNAUTHORIZED, "no key")
        for answer in (client.post("/v2/models/tiny-1/infer", json={}), client.get("/v2"), client.get("/v2/models/x")):
            assert answer.status_code == 401
            assert list(answer.json()) == ["error"]
        for path in ("/model", "/metrics", "/docs", "/openapi.json", "/v2"):
            assert client.get(path, headers={"X-API-Key": OLD}).status_code == 200


@pytest.mark.parametrize("key", [OLD, NEW, LISTED, NEXT])
def test_each_key_lets_in_however_it_is_shown(locked: Server, key: str) -> None:
    expected = httpx.post(f"{locked.url}/score", json=GOOD, headers={"X-API-Key": OLD}).json()["scores"]
    for headers in ({"authorization": f"Bearer {key}"}, {"authorization": f"bEARER  {key}"}, {"x_api_key": key}):
        with httpx.Client(base_url=locked.url, headers={n.replace("_", "-"): v for n, v in headers.items()}) as client:
            for _ in range(3):  # the head is known by then
                answer = client.post("/score", json=GOOD)
                assert (answer.status_code, answer.json()["scores"]) == (200, expected)


@pytest.mark.parametrize(
    ("headers", "got"),
    [
        ({"authorization": f"Bearer {OLD}x"}, "a key that is not known"),
        ({"authorization": f"Bearer {OLD[:-1]}"}, "a key that is not known"),
        ({"authorization": f"Bearer {OLD.upper()}"}, "a key that is not known"),
        ({"authorization": "Bearer"}, "no key"),
        ({"authorization": f"Basic {OLD}"}, "no key"),
        ({"authorization": OLD}, "no key"),
        ({"x_api_key": ""}, "a key that is not known"),
        ({"x_api_key": hashlib.sha256(OLD.encode()).hexdigest()}, "a key that is not known"),
        ({"x_api_key": OLD, "authorization": f"Bearer {OLD}"}, "2 keys"),
        ({"cookie": f"x-api-key={OLD}"}, "no key"),
    ],
)
def test_nothing_else_does(locked: Server, headers: dict[str, str], got: str) -> None:
    answer = ask(locked, **headers)
    assert (answer.status_code, answer.json()["type"], answer.json()["got"]) == (401, UNAUTHORIZED, got)


def test_who_is_not_let_in_is_told_before_the_body_comes(locked: Server) -> None:
    with socket.create_connection(locked.address, timeout=20) as connection:
        connection.sendall(
            b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        )
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 401 ")


def test_the_document_says_how_keys_are_shown_and_where_none_is_needed(locked: Server, client: httpx.Client) -> None:
    document = httpx.get(f"{locked.url}/openapi.json", headers={"X-API-Key": OLD}).json()
    assert document["security"] == [{"bearer": []}, {"header": []}]
    free = {
        path for path, methods in document["paths"].items() if any(m.get("security") == [] for m in methods.values())
    }
    assert free == OPEN_PATHS
    assert "security" not in client.get("/openapi.json").json()


def test_keys_change_while_it_serves_and_are_in_no_log(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(OLD)
    with serving(bundle, api_keys_file=path, log_level="debug", request_log_ratio=1) as server:

        def replace(text: str) -> None:
            (tmp_path / "next").write_text(text)
            (tmp_path / "next").rename(path)

        # A head that is known, on a connection that stays: what it was let in by is looked at with every request.
        with httpx.Client(base_url=server.url, headers={"X-API-Key": OLD}) as kept:
            assert [kept.post("/score", json=GOOD).status_code for _ in range(3)] == [200] * 3
            replace(f"{OLD}\n{NEW}\n")
            wait_for(lambda: ask(server, x_api_key=NEW).status_code == 200, "the new key lets in")
            assert kept.post("/score", json=GOOD).status_code == 200
            replace(f"{NEW}\n")
            wait_for(lambda: kept.post("/score", json=GOOD).status_code == 401, "the old key lets in no more")
            replace("# none\n")
            time.sleep(1.1)  # it looks once a second, at a request
            assert ask(server, x_api_key=NEW).status_code == 200
        server.stop()
    events = [line["event"] for line in server.log]
    assert (events.count("api_keys_read"), events.count("api_keys_kept")) == (2, 1)
    text = json.dumps(server.log)
    assert not [key for key in (OLD, NEW) if key in text]


@pytest.mark.parametrize(
    ("listed", "content", "expected"),
    [
        ("hushhush", None, "REACTION_API_KEYS: expected keys of 16 to 512 visible ASCII characters"),
        (" , ", None, "REACTION_API_KEYS: expected at least one key, got none"),
        (None, "# nothing\n", "REACTION_API_KEYS: expected at least one key, got none"),
        (None, f"{OLD}\nhush\u00e9{OLD}\n", "REACTION_API_KEYS_FILE: expected keys of 16"),
        (None, None, "REACTION_API_KEYS_FILE: expected a file of keys, got"),
    ],
)
def test_keys_that_are_none_end_the_start_and_are_not_repeated(
    bundle: Path, tmp_path: Path, listed: str | None, content: str | None, expected: str
) -> None:
    given = {"api_keys": listed} if listed is not None else {"api_keys_file": tmp_path / "keys"}
    if content is not None:
        (tmp_path / "keys").write_text(content)
    outcome = subprocess.run(
        [sys.executable, "-m", "service", "--bundle", str(bundle), "--port", "0"],
        cwd=ROOT,
        env=environment(**given),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert outcome.returncode == 2
    assert outcome.stderr.startswith(f"error: {expected}")
    assert "hush" not in outcome.stderr


def test_a_key_is_compared_with_all_as_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def noting(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", noting)
    keys = ApiKeys(f"{OLD},{NEW} {LISTED}", None)
    keys.check([(b"x-api-key", OLD.encode())])
    with pytest.raises(UnauthorizedError):
        keys.check([(b"x-api-key", b"none of them, but longer than all of them are together")])
    assert len(compared) == 6
    assert {len(digest) for pair in compared for digest in pair} == {32}
    with pytest.raises(SettingsError):
        ApiKeys("", None)


def test_a_file_that_cannot_be_used_leaves_the_keys_as_they_were(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys"
    path.write_text(OLD)
    keys = ApiKeys(LISTED, path)
    before = keys.now()
    assert len(before) == 2

    def look() -> tuple[bytes, ...]:
        keys._look_at = 0.0
        return keys.now()

    path.write_text("short")
    assert look() is before
    path.write_bytes(b"x" * (1 << 20) + b"yz")
    assert look() is before
    path.unlink()
    assert look() is before
    path.mkdir()
    assert look() is before
    assert capsys.readouterr().out.count("api_keys_kept") == 4
    path.rmdir()
    path.write_text(NEW)
    assert len(look()) == 2
    keys.check([(b"x-api-key", NEW.encode())])
    keys.check([(b"x-api-key", LISTED.encode())])
    with pytest.raises(UnauthorizedError):
        keys.check([(b"x-api-key", OLD.encode())])


def test_the_page_tells_browsers_that_it_needs_nothing_and_belongs_into_no_frame(client: httpx.Client) -> None:
    headers = client.get("/docs").headers
    policy = headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'"} <= set(policy)
    assert not any("script" in part for part in policy)
    assert (headers["x-frame-options"], headers["referrer-policy"]) == ("DENY", "no-referrer")
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert "strict-transport-security" not in headers  # by plain HTTP it would mean nothing
    for path in ("/docs", "/openapi.json", "/model", "/metrics", "/nowhere"):
        assert client.get(path).headers["x-content-type-options"] == "nosniff"
