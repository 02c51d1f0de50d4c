"""A real Prometheus that scrapes services and evaluates the shipped rules, hurried: durations are divided."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.reliability.services import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Prometheus", "hurried", "prometheus"]

RULES: Final = Path(__file__).parents[2] / "docker" / "prometheus" / "alerts.yml"
_MILLISECONDS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000}
_READY_SECONDS: Final = 30.0


def hurried(rules: str, factor: float) -> str:
    """The text of rules with every range and every `for` divided."""

    def divide(found: re.Match[str]) -> str:
        before, number, unit, after = found.groups()
        return f"{before}{max(1, round(int(number) * _MILLISECONDS[unit] / factor))}ms{after}"

    return re.sub(r"(\[|for: *)(\d+)([smh])(\]|$)", divide, rules, flags=re.MULTILINE)


class Prometheus:
    """A running one.

    Args:
        url: Where it answers.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, path: str) -> Any:
        """The data of an answer of its API.

        Raises:
            OSError: It does not answer.
        """
        with urllib.request.urlopen(f"{self._url}/api/v1/{path}", timeout=_READY_SECONDS) as answer:  # noqa: S310
            return json.load(answer)["data"]

    def firing(self) -> list[dict[str, str]]:
        """Labels of the alerts that fire now."""
        return [alert["labels"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"]


@contextlib.contextmanager
def prometheus(
    place: Path, targets: Mapping[str, int], *, factor: float, scrape_seconds: float
) -> Iterator[Prometheus]:
    """Start one, and end it.

    Args:
        place: An empty directory.
        targets: Ports of the loopback to scrape, by what each is called (the label `instance`).
        factor: What durations of the rules are divided by.
        scrape_seconds: How often it scrapes and evaluates.

    Raises:
        FileNotFoundError: It is not installed.
        TimeoutError: It does not answer.
    """
    command = shutil.which("prometheus")
    if command is None:
        raise FileNotFoundError("prometheus: expected it on PATH (Debian: apt-get install prometheus), got none")
    place.mkdir()
    (place / "alerts.yml").write_text(hurried(RULES.read_text(encoding="utf-8"), factor), encoding="utf-8")
    every = f"{round(scrape_seconds * 1000)}ms"
    statics = [{"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}} for name, port in targets.items()]
    config = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": [str(place / "alerts.yml")],
        "scrape_configs": [{"job_name": "reaction", "static_configs": statics}],
    }
    (place / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")  # which is YAML too
    port = free_port()
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                command,
                f"--config.file={place / 'prometheus.yml'}",
                f"--storage.tsdb.path={place / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        running = Prometheus(f"http://127.0.0.1:{port}")
        end = time.monotonic() + _READY_SECONDS
        while True:
            with contextlib.suppress(OSError):
                running.ask("status/runtimeinfo")
                break
            if time.monotonic() > end or process.poll() is not None:
                raise TimeoutError(f"expected a Prometheus that answers, got {(place / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        yield running
    finally:
        process.terminate()
        process.wait()
