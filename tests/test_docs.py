"""Documentation that cannot rot: README's commands are run, and everything that has to be documented is."""

import csv
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.metrics import metrics_markdown
from service.settings import Settings, settings_markdown
from training.datasets import DATASETS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = {
    name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
}
ROWS = 1000
# What stands in for curl where there is none: the few options that README uses.
CURL = """#!{python}
import sys, urllib.request
words, headers, data, url = sys.argv[1:], {{}}, None, None
while words:
    word = words.pop(0)
    if word == "-H":
        name, value = words.pop(0).split(":", 1)
        headers[name] = value.strip()
    elif word == "-d":
        data = words.pop(0).encode()
    elif word != "-s":
        url = word
print(urllib.request.urlopen(urllib.request.Request(url, data, headers)).read().decode())
"""


def blocks(language: str) -> list[str]:
    """Fenced blocks of README in a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """All commands of README's bash blocks, one string each, whatever lines they span."""
    found: list[str] = []
    for block in blocks("bash"):
        whole = ""
        for line in block.splitlines():
            whole += line + "\n"
            try:
                shlex.split(whole)
            except ValueError:  # a quotation goes on in the next line
                continue
            found.append(whole.strip())
            whole = ""
        assert not whole, f"a quotation that never ends: {whole}"
    return found


def write_log(path: Path) -> None:
    """The table that README shows, with as many rows as a training needs."""
    (example,) = blocks("csv")
    header, *shown = csv.reader(example.splitlines())
    draw = random.Random(7)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(shown)
        for row in range(ROWS):
            user, device, ad = draw.randrange(40), draw.choice(["ios", "android", "web"]), draw.randrange(12)
            tags = "|".join(draw.sample(["shoes", "sale", "books", "new"], draw.randrange(3)))
            click = int(draw.random() < 0.1 + 0.5 * (ad % 3 == 0) * (device == "ios") + 0.2 * (user % 4 == 0))
            moment = f"2026-03-{2 + row // 200:02}T{row % 24:02}:00:{row % 60:02}"
            price = f"{0.2 + draw.random() * 3:.2f}"
            writer.writerow([moment, f"r{row // 4 + 2}", f"u{user}", device, f"a{ad}", price, tags, row % 4 + 1, click])


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as README's reader has it: the repository's files that its commands name, and a log."""
    place = tmp_path_factory.mktemp("reader")
    (place / "training").symlink_to(ROOT / "training")
    write_log(place / "clicks.csv")
    return place


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """As after `. .venv/bin/activate`; a port of our own, for another service may run on this machine."""
    programs = tmp_path_factory.mktemp("bin")
    # no link: that would leave the virtual environment behind
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    if shutil.which("curl") is None:
        (programs / "curl").write_text(CURL.format(python=sys.executable), encoding="utf-8")
    for program in programs.iterdir():
        program.chmod(stat.S_IRWXU)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REACTION_")}
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "REACTION_PORT": str(port)}


@pytest.fixture
def background() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Services that a command started; they are told to stop at the end, and must do so in good order."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.send_signal(signal.SIGTERM)
    for process in started:
        assert process.wait(30) == 0


def wait_until_ready(port: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, "the service has ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("the service is not ready after 60 seconds")


@pytest.mark.slow
def test_the_commands_of_the_readme_do_what_it_says(
    workplace: Path, environment: dict[str, str], background: list[subprocess.Popen[bytes]]
) -> None:
    port = environment["REACTION_PORT"]
    answers: list[Any] = []
    # What is served keeps running; all that is to be asked of it comes after, as in README's order of sections.
    for command in commands():
        if command.startswith("python -m service --bundle"):
            words = shlex.split(command)
            process = subprocess.Popen([sys.executable, *words[1:]], cwd=workplace, env=environment)
            background.append(process)
            wait_until_ready(port, process)
            continue
        done = subprocess.run(
            [shutil.which("bash") or "bash", "-ec", command.replace("127.0.0.1:8080", f"127.0.0.1:{port}")],
            cwd=workplace,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if "/score" in command:
            answers.append(json.loads(done.stdout))
    assert (workplace / "runs/clicks/report.html").is_file()
    first, columns, pointwise = answers
    (promised,) = (json.loads(block) for block in blocks("json"))
    assert set(first) == set(promised)
    assert first["request_id"] == promised["request_id"]
    assert len(first["scores"]) == len(promised["scores"])
    assert len(first["ranking"]) == 1
    assert columns["scores"] == pytest.approx(first["scores"], abs=1e-7)
    assert len(pointwise["scores"]) == 1


def test_every_setting_is_documented_as_it_is() -> None:
    assert settings_markdown() in README


def test_every_metric_is_documented_as_it_is() -> None:
    assert metrics_markdown() in README


def test_every_data_set_and_experiment_is_in_the_table_of_the_readme() -> None:
    rows = {cells[0]: cells[1] for cells in re.findall(r"^\| `(\w+)` \| `([\w.]+\.toml)` \|", README, re.MULTILINE)}
    assert set(rows) == set(DATASETS)
    assert set(rows.values()) == {path.name for path in (ROOT / "training/experiments").glob("*.toml")}


def test_every_route_is_in_the_table_of_the_readme() -> None:
    rows = [line.split("|")[1] for line in README.splitlines() if line.startswith("| `")]
    documented = {path for row in rows for path in re.findall(r"`(?:GET |POST )?(/[\w/{}]+)`", row)}
    app = create_app(Settings(bundle=Path("none")))
    assert documented == {*app.openapi()["paths"], "/docs"}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_and_make_targets_that_a_document_names_exist(name: str) -> None:
    text = DOCUMENTS[name]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)\b", re.sub(r"[^`]*?(`[^`]+`|$)", r"\1", text))) <= targets
    for path in re.findall(r"`((?:service|training|model_export|docker|tests|benchmarks/serving)/[\w./]*)`", text):
        assert (ROOT / path).exists(), f"{name} names {path}"
