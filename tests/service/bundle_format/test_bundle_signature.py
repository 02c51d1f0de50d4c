"""A signature proves where a bundle comes from: asked for, a bundle without a valid one is never served."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from serving import parse_log, serving, start
from signatures import GOOD_KEY_ID, sign, write_public_key

from service.bundle import BundleSignatureError, PublicKeys, read_bundle
from service.features.files import digest_file


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return write_public_key(tmp_path / "keys.pem")


@pytest.fixture
def signed(bundle: Path, tmp_path: Path) -> Path:
    path = Path(shutil.copytree(bundle, tmp_path / "signed"))
    sign(path)
    return path


def test_a_signed_bundle_is_served_and_the_log_names_the_key(signed: Path, keys: Path) -> None:
    with serving(signed, bundle_keys_file=keys) as server:
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        assert server.stop() == 0
    assert [entry["signed_by"] for entry in server.log if entry["event"] == "ready"] == [GOOD_KEY_ID]


def forge(path: Path) -> None:
    """What whoever can write the bundle does: another score for the first golden row, digests made to fit."""
    lines = (path / "golden.jsonl").read_bytes().splitlines(keepends=True)
    (path / "golden.jsonl").write_bytes(b"".join(lines[1:]))
    manifest = json.loads((path / "manifest.json").read_text())
    found = digest_file(path / "golden.jsonl")
    manifest["files"]["golden.jsonl"] = {"sha256": found.sha256, "bytes": found.bytes}
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "manifest.sig").unlink(), "expected a signature by a key of .*, got none"),
        (forge, "got one by [0-9a-f]{16} that is not of this manifest"),
        (lambda path: sign(path, seed=2), "got those of [0-9a-f]{16}"),
        (lambda path: (path / "manifest.sig").write_bytes(b""), "Input data was truncated"),
    ],
)
def test_a_service_with_pinned_keys_refuses_what_none_of_them_signed(
    signed: Path, keys: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(signed)
    with pytest.raises(BundleSignatureError, match=f"^{signed / 'manifest.sig'}: .*{message}"):
        read_bundle(signed, keys=PublicKeys.read(keys))
    assert read_bundle(signed).signed_by is None, "a service without pinned keys asks for none"


def test_what_is_not_signed_never_becomes_ready_and_the_log_says_why(signed: Path, keys: Path) -> None:
    forge(signed)
    server = start(signed, wait=False, bundle_keys_file=keys)
    _, rest = server.process.communicate(timeout=30)
    assert server.process.returncode == 1
    (failed,) = [entry for entry in server.log + parse_log(rest) if entry["event"] == "start_failed"]
    assert failed["error"].startswith(f"BundleSignatureError: {signed / 'manifest.sig'}: ")
    assert "exception" not in failed, "a refusal, no fault of the service"


def test_any_of_several_pinned_keys_will_do(signed: Path, tmp_path: Path) -> None:
    write_public_key(tmp_path / "one", seed=2)
    both = f"# old\n{(tmp_path / 'one').read_text()}\n# new\n{write_public_key(tmp_path / 'two').read_text()}"
    (tmp_path / "both").write_text(both)
    assert len(PublicKeys.read(tmp_path / "both").raw) == 2
    assert read_bundle(signed, keys=PublicKeys.read(tmp_path / "both")).signed_by == GOOD_KEY_ID


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a file of public keys, got .*No such file"),
        ("", "expected one public key or more, got none"),
        ("# only words\n", "expected one public key or more, got none"),
        ("ssh-ed25519 AAAA\n", "expected PEM blocks PUBLIC KEY and lines with #, got something else"),
        ("-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n", "got something else"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "expected an Ed25519 public key, got"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n", "got something else"),
        ("é", "expected a file of public keys, got .*ascii"),
        ("#" * 2_000_000, "expected at most 1048576 bytes, got 2000000"),
    ],
)
def test_a_file_that_holds_no_public_keys_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "keys").write_text(content, encoding="utf-8")
    with pytest.raises(BundleSignatureError, match=f"^{tmp_path / 'keys'}: .*{message}"):
        PublicKeys.read(tmp_path / "keys")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.update(version=2), r"Invalid enum value 2 - at `\$.version`"),
        (lambda d: d.update(algorithm="none"), r"Invalid enum value 'none' - at `\$.algorithm`"),
        (lambda d: d.update(extra=1), "unknown field `extra`"),
        (lambda d: d["signatures"][0].update(key="0"), "expected an id and 64 bytes in base64"),
        (lambda d: d["signatures"][0].update(signature="AAAA"), "expected an id and 64 bytes in base64"),
        (lambda d: d["signatures"][0].update(signature="é"), "expected an id and 64 bytes in base64"),
        (lambda d: d["signatures"].append(d["signatures"][0]), "once a key"),
        (lambda d: d["signatures"].reverse(), "expected signatures as they are written, got the same in other words"),
    ],
)
def test_a_signature_file_that_breaks_the_format_is_refused(
    signed: Path, keys: Path, edit: Callable[[object], object], message: str
) -> None:
    document = json.loads((signed / "manifest.sig").read_text())
    edit(document)
    (signed / "manifest.sig").write_text(json.dumps(document))
    with pytest.raises(BundleSignatureError, match=message):
        read_bundle(signed, keys=PublicKeys.read(keys))


def test_a_signature_file_is_no_way_out_of_the_bundle(signed: Path, keys: Path, tmp_path: Path) -> None:
    (signed / "manifest.sig").rename(tmp_path / "elsewhere")
    (signed / "manifest.sig").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleSignatureError, match=r"got a symbolic link at 'manifest.sig'"):
        read_bundle(signed, keys=PublicKeys.read(keys))
    (signed / "manifest.sig").unlink()
    (signed / "manifest.sig").write_bytes(b" " * 70_000)
    with pytest.raises(BundleSignatureError, match="expected at most 65536 bytes, got 70000"):
        read_bundle(signed, keys=PublicKeys.read(keys))


def test_a_process_without_pinned_keys_loads_no_cryptography(bundle: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from service.versions.loading import load_model\n"
        f"load_model(Path({str(bundle)!r}), threads=1); print('cryptography' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
