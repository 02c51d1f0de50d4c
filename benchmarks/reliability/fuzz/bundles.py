"""A campaign: damage after damage, each opened, each outcome counted.

Twice: with digests as they were written, where all must be refused before any parser sees the damage (the bundle is
signed and its key pinned, or nothing would cover the manifest); and with digests made to fit, where parsers and ONNX
Runtime meet it, in a process of their own.
"""

from __future__ import annotations

import hashlib
import json
import select
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from random import Random
from typing import TYPE_CHECKING, Any, Final

from benchmarks.reliability.fuzz.damage import KINDS, damaged
from benchmarks.reliability.fuzz.structured import STRUCTURED
from model_export.signing import generate_key, read_key, sign_bundle
from service.bundle import BundleError, PublicKeys, read_bundle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Finding", "Result", "as_written", "digests_made_to_fit", "signed_copy"]

_MOST_SECONDS: Final = 60.0
_BUNDLES_A_CHILD: Final = 500
_SIGNATURE: Final = "manifest.sig"
_MANIFEST: Final = "manifest.json"
_FEATURES: Final = "features.json"


@dataclass(frozen=True, slots=True)
class Finding:
    """A damage that did what no damage may do."""

    seed: int
    file: str
    kind: str
    outcome: str
    message: str


@dataclass(slots=True)
class Result:
    """What became of the damages.

    Attributes:
        inputs: Damaged bundles that were opened.
        outcomes: How many became what: refused, served, unanswered (no score was finite), accepted, insane, fault,
            crashed, hung.
        reasons: Of the refused ones, by error.
        files: How many by file.
        findings: Those that are none of refused, served and unanswered.
    """

    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def count(self, seed: int, file: str, kind: str, found: dict[str, Any]) -> None:
        """Add one."""
        self.inputs += 1
        self.files[file] += 1
        self.outcomes[found["outcome"]] += 1
        if found["outcome"] == "refused":
            self.reasons[found["why"]] += 1
        elif found["outcome"] not in {"served", "unanswered"}:
            self.findings.append(
                Finding(seed, file, kind, found["outcome"], f"{found['why']}: {found['message']}"[:400])
            )

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "inputs": self.inputs,
            "outcomes": dict(self.outcomes.most_common()),
            "reasons": dict(self.reasons.most_common()),
            "files": dict(self.files.most_common()),
            "findings": [
                {"seed": f.seed, "file": f.file, "kind": f.kind, "outcome": f.outcome, "message": f.message}
                for f in self.findings[:50]
            ],
        }


def _names(bundle: Path) -> list[str]:
    return sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file())


def _damage(names: list[str], contents: dict[str, bytes], seed: int) -> tuple[str, str, dict[str, bytes]]:
    """A file, what is done to it, and the contents that change: of that file, or of two that change places."""
    draw = Random(seed)  # noqa: S311 - to be had again, not to be secret
    name = names[seed % len(names)]  # every file as often as any other, however long it is
    structured = STRUCTURED.get(PurePosixPath(name).suffix)
    if structured is not None and draw.randrange(2):
        return name, "structured", {name: structured(draw, contents[name])}
    kind = draw.choice([*KINDS, "exchange"])
    if kind == "exchange":
        other = draw.choice(sorted(contents))
        return name, f"exchange with {other}", {name: contents[other], other: contents[name]}
    return name, kind, {name: damaged(kind, draw, contents[name])}


def signed_copy(bundle: Path, place: Path) -> tuple[Path, PublicKeys]:
    """A copy of a bundle in a directory, signed by a new key, and that key as a service pins it."""
    signed = place / "signed"
    shutil.copytree(bundle, signed)
    generate_key(place / "key", place / "key.pub")
    sign_bundle(signed, read_key(place / "key"))
    return signed, PublicKeys.read(place / "key.pub")


def as_written(signed: Path, keys: PublicKeys, work: Path, seeds: range, only: Sequence[str] = ()) -> Result:
    """Open damaged bundles whose digests are those of the undamaged files; each must be refused.

    Args:
        signed: A bundle that one of the keys signed.
        keys: What is pinned.
        work: A directory that does not exist.
        seeds: One damage each.
        only: Files to damage; all unless given.
    """
    shutil.copytree(signed, work)
    contents = {name: (work / name).read_bytes() for name in _names(work)}
    result = Result()
    for seed in seeds:
        name, kind, changes = _damage(list(only or contents), contents, seed)
        if all(contents[changed] == content for changed, content in changes.items()):
            continue
        for changed, content in changes.items():
            (work / changed).write_bytes(content)
        try:
            read_bundle(work, keys=keys)
            found = {"outcome": "accepted", "why": "", "message": ""}
        except BundleError as error:
            found = {"outcome": "refused", "why": type(error).__name__, "message": str(error)}
        except Exception as error:  # noqa: BLE001 - which is the finding
            found = {"outcome": "fault", "why": type(error).__name__, "message": str(error)}
        result.count(seed, name, kind, found)
        for changed in changes:
            (work / changed).write_bytes(contents[changed])
    return result


def _fit(contents: dict[str, bytes], changes: dict[str, bytes]) -> dict[str, bytes]:
    """Contents with digests and sizes made to fit: of vocabularies in the schema, then of all files in the manifest."""
    fitted = dict(changes)
    if _FEATURES not in changes:
        schema = json.loads(contents[_FEATURES])
        for entry in schema["fields"]:
            stored = entry.get("vocabulary") or {}
            if stored.get("file") in changes:
                stored.update(_stamp(changes[stored["file"]]))
        fitted[_FEATURES] = json.dumps(schema).encode()
    if _MANIFEST not in changes:
        manifest = json.loads(contents[_MANIFEST])
        for name, content in fitted.items():
            manifest["files"][name] = _stamp(content)
        fitted[_MANIFEST] = json.dumps(manifest).encode()
    return fitted


def _stamp(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


class _Child:
    """The process that opens bundles; started again when it ended, or has opened many."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._opened = 0

    def open(self, bundle: Path) -> dict[str, Any]:
        """What became of a bundle."""
        if self._process is None or self._opened >= _BUNDLES_A_CHILD:
            self.close()
            command = [sys.executable, "-m", "benchmarks.reliability.fuzz.opener"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            self._opened = 0
        self._opened += 1
        process = self._process
        assert process.stdin is not None  # noqa: S101 - as asked for above
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(f"{bundle}\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], _MOST_SECONDS)[0]:
            process.kill()
            self.close()
            return {"outcome": "hung", "why": "", "message": f"no answer in {_MOST_SECONDS:g} s"}
        line = process.stdout.readline()
        if not line:
            status = process.wait()
            self.close()
            return {"outcome": "crashed", "why": f"exit status {status}", "message": ""}
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None  # noqa: S101
                pipe.close()
            self._process.wait()
            self._process = None


def digests_made_to_fit(bundle: Path, work: Path, seeds: range, only: Sequence[str] = ()) -> Result:
    """Open damaged bundles whose digests fit the damage, in a process of its own.

    Args:
        bundle: A good bundle.
        work: A directory that does not exist.
        seeds: One damage each.
        only: Files to damage; all unless given.
    """
    shutil.copytree(bundle, work)
    (work / _SIGNATURE).unlink(missing_ok=True)
    contents = {name: (work / name).read_bytes() for name in _names(work)}
    result, child = Result(), _Child()
    try:
        for seed in seeds:
            name, kind, changes = _damage(list(only or contents), contents, seed)
            if all(contents[changed] == content for changed, content in changes.items()):
                continue
            fitted = _fit(contents, changes)
            for changed, content in fitted.items():
                (work / changed).write_bytes(content)
            result.count(seed, name, kind, child.open(work))
            for changed in fitted:
                (work / changed).write_bytes(contents[changed])
    finally:
        child.close()
    return result
