"""Keys and signatures of bundles, through the commands and against another implementation of Ed25519."""

import json
import shutil
import stat
import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import pytest
from serving import build_bundle
from typer.testing import CliRunner

from model_export import signing
from model_export.signing import app, generate_key, read_key, sign_bundle
from service.bundle import Bundle, BundleSignatureError, PublicKeys, read_bundle
from service.bundle_format.signature import encode_signatures, key_id

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    build_bundle(path)
    return path


@pytest.fixture
def bundle(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "bundle"))


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "model_export", *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_a_key_is_made_a_bundle_signed_and_taken_with_it_and_with_no_other(bundle: Path, tmp_path: Path) -> None:
    made = command("keygen", "--out", tmp_path / "release")
    assert made.returncode == 0, made.stderr
    assert stat.S_IMODE((tmp_path / "release").stat().st_mode) == 0o600
    signed = command("sign", bundle, "--key", tmp_path / "release")
    assert signed.returncode == 0, signed.stderr
    owner = signed.stdout.split()[-1]
    assert owner in made.stdout
    assert read_bundle(bundle, keys=PublicKeys.read(tmp_path / "release.pub")).signed_by == owner
    generate_key(tmp_path / "other", tmp_path / "other.pub")
    with pytest.raises(BundleSignatureError, match=r"expected a signature of the manifest by a key .*, got those of"):
        read_bundle(bundle, keys=PublicKeys.read(tmp_path / "other.pub"))


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    for taken in ("release", "release.pub"):
        (tmp_path / taken).write_text("mine")
        refused = command("keygen", "--out", tmp_path / "release")
        assert refused.returncode == 2
        assert refused.stderr == f"error: {tmp_path / taken}: expected a file that can be made, got File exists\n"
        assert [path.name for path in tmp_path.iterdir()] == [taken]
        (tmp_path / taken).unlink()


def test_a_bundle_that_the_service_would_refuse_is_not_signed(bundle: Path, tmp_path: Path) -> None:
    generate_key(tmp_path / "key", tmp_path / "key.pub")
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[-1] ^= 1
    (bundle / "model.onnx").write_bytes(content)
    refused = command("sign", bundle, "--key", tmp_path / "key")
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: {bundle / 'model.onnx'}: expected SHA-256")
    assert not (bundle / "manifest.sig").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a file with a private key, got"),
        (b"public", "expected an unencrypted Ed25519 private key in PEM"),
        (b"rsa", "expected an Ed25519 private key, got RSAPrivateKey"),
        (b"encrypted", "expected an unencrypted Ed25519 private key in PEM"),
    ],
)
def test_what_is_no_key_to_sign_with_is_refused(
    bundle: Path, tmp_path: Path, content: bytes | None, message: str
) -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    generate_key(tmp_path / "key", tmp_path / "key.pub")
    form = (Encoding.PEM, PrivateFormat.PKCS8)
    if content == b"public":
        content = (tmp_path / "key.pub").read_bytes()
    elif content == b"rsa":
        content = rsa.generate_private_key(65_537, 2048).private_bytes(*form, NoEncryption())
    elif content == b"encrypted":
        content = ed25519.Ed25519PrivateKey.generate().private_bytes(*form, BestAvailableEncryption(b"x"))
    wrong = tmp_path / "wrong"
    if content is not None:
        wrong.write_bytes(content)
    refused = CliRunner().invoke(app, ["sign", str(bundle), "--key", str(wrong)])
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"error: {wrong}: {message}")


def test_signatures_of_several_keys_stand_side_by_side_and_a_key_may_sign_again(bundle: Path, tmp_path: Path) -> None:
    owners = []
    for name in ("old", "new", "old"):
        if not (tmp_path / name).exists():
            generate_key(tmp_path / name, tmp_path / f"{name}.pub")
        owners.append(sign_bundle(bundle, read_key(tmp_path / name)))
    assert owners[0] == owners[2] != owners[1]
    for name, owner in zip(("old", "new"), owners, strict=False):
        assert read_bundle(bundle, keys=PublicKeys.read(tmp_path / f"{name}.pub")).signed_by == owner
    assert len(json.loads((bundle / "manifest.sig").read_text())["signatures"]) == 2
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [], "nothing is left beside it"


def test_what_is_signed_is_what_was_checked_though_the_manifest_is_exchanged_meanwhile(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate_key(tmp_path / "key", tmp_path / "key.pub")
    keys = PublicKeys.read(tmp_path / "key.pub")
    manifest = bundle / "manifest.json"
    checked = manifest.read_bytes()

    def read_and_lose(path: Path) -> Bundle:
        read = read_bundle(path)
        manifest.write_bytes(checked.replace(b'"model_id"', b' "model_id"', 1))
        return read

    monkeypatch.setattr(signing, "read_bundle", read_and_lose)
    sign_bundle(bundle, read_key(tmp_path / "key"))
    with pytest.raises(BundleSignatureError, match="that is not of this manifest"):
        read_bundle(bundle, keys=keys)
    manifest.write_bytes(checked)
    assert read_bundle(bundle, keys=keys).signed_by in keys.raw


def test_a_signature_of_the_standard_s_own_vectors_is_verified(tmp_path: Path) -> None:
    # RFC 8032, section 7.1, test 3
    public = bytes.fromhex("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025")
    message = bytes.fromhex("af82")
    signature = bytes.fromhex(
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
    )
    keys = PublicKeys("vector", {key_id(public): public})
    assert keys.voucher(message, encode_signatures({key_id(public): signature}), "sig") == key_id(public)
    for other, text in ((b"\xaf\x83", signature), (message, signature[:-1] + b"\x0b")):
        with pytest.raises(BundleSignatureError, match="that is not of this manifest"):
            keys.voucher(other, encode_signatures({key_id(public): text}), "sig")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_reads_our_keys_and_agrees_on_our_signature(bundle: Path, tmp_path: Path) -> None:
    generate_key(tmp_path / "key", tmp_path / "key.pub")
    sign_bundle(bundle, read_key(tmp_path / "key"))
    (entry,) = json.loads((bundle / "manifest.sig").read_text())["signatures"]
    (tmp_path / "raw").write_bytes(b64decode(entry["signature"]))
    openssl = ["openssl", "pkeyutl", "-rawin", "-in", str(bundle / "manifest.json")]
    verify = [*openssl, "-verify", "-pubin", "-inkey", str(tmp_path / "key.pub"), "-sigfile", str(tmp_path / "raw")]
    assert subprocess.run(verify, capture_output=True, check=False).returncode == 0
    done = subprocess.run([*openssl, "-sign", "-inkey", str(tmp_path / "key")], capture_output=True, check=True)
    assert done.stdout == (tmp_path / "raw").read_bytes()
