"""TLS, with a certificate made here and a real server, of one process and of two."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest
from certificates import certify
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from processes import wait_for
from serving import ROOT, ROW_CANDIDATES, ROW_CONTEXT, environment, samples, start

from benchmarks.reliability.steady import is_closed
from service.edge.tls import check_tls
from service.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from pathlib import Path

GOOD = {"context": ROW_CONTEXT, "candidates": ROW_CANDIDATES}


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_served_by_tls_is_what_is_served_without(
    bundle: Path, tmp_path: Path, client: httpx.Client, workers: int
) -> None:
    certificate, key = certify(tmp_path, "own")
    trust = ssl.create_default_context(cafile=certificate)
    server = start(bundle, wait=False, workers=workers, tls_certificate_file=certificate, tls_key_file=key)
    host, port = server.address
    try:
        with httpx.Client(base_url=f"https://{host}:{port}", verify=trust) as secure:
            while secure.get("/readyz").status_code != 200:
                pass
            expected = client.post("/score", json=GOOD).json()["scores"]
            for _ in range(3):  # by the lane, once the head is known
                assert secure.post("/score", json=GOOD).json()["scores"] == expected
            many = {"candidates": [{"ad": "a1"}] * 9000}  # more than one record, by a thread, compressed
            assert (
                secure.post("/score", json=many).json()["scores"] == client.post("/score", json=many).json()["scores"]
            )
            assert secure.get("/docs").headers["strict-transport-security"].startswith("max-age=")
            assert f"https://{host}:{port}/score" in secure.get("/docs").text
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"https://{host}:{port}/livez")
        # What is no TLS gets no answer, and what is refused is told within it.
        with socket.create_connection(server.address, timeout=20) as plain:
            plain.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert not plain.recv(1 << 16).startswith(b"HTTP/")
        with trust.wrap_socket(socket.create_connection(server.address, timeout=20), server_hostname=host) as wrapped:
            assert wrapped.version() in {"TLSv1.2", "TLSv1.3"}
            wrapped.sendall(b"no request\r\n\r\n")
            said = b""
            while part := wrapped.recv(1 << 16):
                said += part
            assert said.startswith(b"HTTP/1.1 400 ")
            assert b"urn:problem-type:reaction:malformed-http" in said
        old = ssl.create_default_context(cafile=certificate)
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(server.address, timeout=20) as connection, pytest.raises(ssl.SSLError):
            old.wrap_socket(connection, server_hostname=host)
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_who_says_nothing_in_the_handshake_is_one_who_sends_no_head(bundle: Path, tmp_path: Path, workers: int) -> None:
    certificate, key = certify(tmp_path, "own")
    files: dict[str, object] = {"tls_certificate_file": certificate, "tls_key_file": key}
    server = start(bundle, wait=False, workers=workers, head_seconds=0.2, **files)
    try:
        with socket.create_connection(server.address, timeout=20) as silent:
            silent.settimeout(8)
            assert silent.recv(1) == b""
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_handshakes_that_never_end_are_bounded_and_a_probe_gets_through_them(
    bundle: Path, tmp_path: Path, workers: int
) -> None:
    certificate, key = certify(tmp_path, "own")
    files: dict[str, object] = {"tls_certificate_file": certificate, "tls_key_file": key}
    server = start(bundle, wait=False, workers=workers, max_connections=20, head_seconds=60, **files)
    host, port = server.address
    with contextlib.ExitStack() as stack, httpx.Client(verify=ssl.create_default_context(cafile=certificate)) as client:
        silent = [stack.enter_context(socket.create_connection(server.address, timeout=20)) for _ in range(120)]

        def ready() -> bool:
            try:
                return client.get(f"https://{host}:{port}/readyz").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(ready, "a probe gets in")
        least = 120 - workers * 20
        wait_for(lambda: sum(map(is_closed, silent)) >= least, "those that came first were ended")
        name = 'reaction_connections_cut_total{reason="full"}'
        assert samples(client.get(f"https://{host}:{port}/metrics").text)[name] >= least
    assert server.stop() == 0


def test_files_that_do_not_fit_end_the_start(bundle: Path, tmp_path: Path) -> None:
    certificate, key = certify(tmp_path, "own")
    _, other = certify(tmp_path, "other")
    _, locked = certify(tmp_path, "locked", encryption=BestAvailableEncryption(b"secret"))
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    cases: list[tuple[dict[str, object], str]] = [
        ({"tls_certificate_file": certificate, "tls_key_file": other}, "KEY_VALUES_MISMATCH"),
        ({"tls_certificate_file": certificate, "tls_key_file": locked}, "got "),
        ({"tls_certificate_file": tmp_path / "none"}, "No such file"),
        ({"tls_certificate_file": certificate}, "got "),
        ({"tls_key_file": key}, "expected the certificate of that key, got none"),
    ]
    for given, message in cases:
        with pytest.raises(SettingsError, match=r"^REACTION_TLS_CERTIFICATE_FILE: expected ") as caught:
            check_tls(load_settings(bundle=bundle, **given))
        assert message in str(caught.value)
    check_tls(load_settings(bundle=bundle, tls_certificate_file=both))
    outcome = subprocess.run(
        [sys.executable, "-m", "service", "--bundle", str(bundle), "--port", "0"],
        cwd=ROOT,
        env=environment(tls_certificate_file=certificate, tls_key_file=locked),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (outcome.returncode, outcome.stderr.startswith("error: REACTION_TLS_CERTIFICATE_FILE: ")) == (2, True)
