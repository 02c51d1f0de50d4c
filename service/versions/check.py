"""A bundle's golden rows scored in a process of its own: what hangs or crashes there takes nobody with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from service.versions.store import StoreError

__all__ = ["Checked", "check_bundle"]


class Checked(msgspec.Struct):
    """What came of it, as the process says it.

    Attributes:
        rows: Golden rows scored.
        largest_difference: Largest absolute difference from the golden scores.
        error: Why a service would refuse the bundle; empty if it would not.
    """

    rows: int = 0
    largest_difference: float = 0.0
    error: str = ""


def check_bundle(bundle: Path, keys_file: Path | None, seconds: float) -> Checked:
    """Check a bundle as a service does before it serves it.

    Args:
        bundle: Its directory.
        keys_file: Public keys of which one must have signed it; None asks for no signature.
        seconds: How long that may take.

    Raises:
        StoreError: A service would refuse it, or the process was too slow or ended without a word.
        OSError: No process can be started.
    """
    words = [sys.executable, "-m", "service.versions.check", str(bundle)]
    try:
        done = subprocess.run(
            words if keys_file is None else [*words, str(keys_file)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StoreError(f"{bundle}: expected it checked within {seconds:g} s, got no answer") from None
    try:
        checked = msgspec.json.decode(done.stdout, type=Checked)
    except msgspec.DecodeError:
        said = (done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"])[-1]
        raise StoreError(f"{bundle}: expected it checked, got exit status {done.returncode}: {said}") from None
    if checked.error:
        raise StoreError(checked.error)
    return checked


def _main(bundle: str, keys_file: str | None = None) -> None:
    from service.bundle_format.manifest import BundleError  # noqa: PLC0415 - heavy, and the parent does without
    from service.scorer import ScorerError  # noqa: PLC0415
    from service.versions.loading import load_model  # noqa: PLC0415

    try:
        report = load_model(Path(bundle), threads=1, keys_file=None if keys_file is None else Path(keys_file)).report
        checked = Checked(report.rows, report.largest_difference)
    except (OSError, BundleError, ScorerError) as error:
        checked = Checked(error=str(error))
    sys.stdout.buffer.write(msgspec.json.encode(checked))


if __name__ == "__main__":
    _main(*sys.argv[1:])
