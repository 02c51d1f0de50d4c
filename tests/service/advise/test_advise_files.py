"""The file of settings that `advise` writes: read by shells and by Docker, outside the bundle, never by surprise."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from serving import environment

from service.advise import env_file
from service.advise.decisions import Decision
from service.advise.env_file import check_destination, env_text, write_env
from service.advise.errors import OutputError
from service.settings import Settings, unknown_variables

if TYPE_CHECKING:
    from pathlib import Path

DECISIONS = (
    Decision("precision", "float32", "int8", 'it\'s 1.5x; $HOME `date` # "quoted"'),
    Decision("model_threads", 1, None, "nothing gains"),
    Decision("inline_body_bytes", 65_536, 31_000, "a thread gains"),
    Decision("coalesce", False, True, "it gains"),
    Decision("workers", 2, 3, "more"),
)
EXPECTED = {"precision": "int8", "inline_body_bytes": 31_000, "coalesce": True, "workers": 3, "model_threads": None}
TEXT = env_text(DECISIONS, ["one line", "two\nlines"])


def test_a_shell_reads_it_and_the_settings_are_those_advised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "it.env"
    path.write_text(TEXT)
    for name in [name for name in environment() if name.startswith("REACTION_")]:
        monkeypatch.delenv(name)
    shell = shutil.which("sh") or "sh"
    show = "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if k.startswith('REACTION_')}))"
    done = subprocess.run(
        [shell, "-euc", f'set -a; . {path}; set +a; exec python3 -c "$1"', "sh", show],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    read = json.loads(done.stdout)
    assert unknown_variables(read) == {}
    for name, value in read.items():
        monkeypatch.setenv(name, value)
    settings = Settings(bundle=tmp_path)
    assert {name: getattr(settings, name) for name in EXPECTED} == EXPECTED


def test_docker_reads_the_same_from_it() -> None:
    # `docker run --env-file`: lines that start with # are comments, others are NAME=value with nothing unquoted.
    lines = [line for line in TEXT.splitlines() if not line.startswith("#")]
    assert lines == [
        "REACTION_PRECISION=int8",
        "REACTION_INLINE_BODY_BYTES=31000",
        "REACTION_COALESCE=true",
        "REACTION_WORKERS=3",
    ]
    assert "# REACTION_MODEL_THREADS: no change (1): nothing gains" in TEXT


def test_it_is_never_written_into_the_bundle_whatever_way_leads_there(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle)
    before = sorted(bundle.rglob("*"))
    for path in (
        bundle / "a.env",
        bundle / "vocabularies/a.env",
        tmp_path / "link/a.env",
        tmp_path / "link/../tiny/a.env",
    ):
        with pytest.raises(OutputError, match="expected a file outside the bundle"):
            write_env(path, TEXT, bundle, force=True)
    with pytest.raises(OutputError, match="expected a file outside the bundle"):
        check_destination(bundle, bundle, force=True)
    assert sorted(bundle.rglob("*")) == before


def test_a_file_that_exists_is_replaced_only_by_force_and_then_whole(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "it.env"
    write_env(path, "one\n", bundle, force=False)
    with pytest.raises(OutputError, match="replace with --force"):
        write_env(path, "two\n", bundle, force=False)
    assert path.read_text() == "one\n"
    write_env(path, "two\n", bundle, force=True)
    assert path.read_text() == "two\n"
    (tmp_path / "directory").mkdir()
    with pytest.raises(OutputError, match="it exists"):
        write_env(tmp_path / "directory", "three\n", bundle, force=True)
    with pytest.raises(OutputError, match="expected a directory that exists"):
        write_env(tmp_path / "nowhere/it.env", "three\n", bundle, force=False)
    assert {entry.name for entry in tmp_path.iterdir()} == {"it.env", "directory"}


def test_a_file_that_comes_while_it_is_measured_is_kept(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "it.env"
    monkeypatch.setattr(env_file, "check_destination", lambda *_args, **_named: path.write_text("theirs"))
    with pytest.raises(OutputError, match="expected a file that can be written"):
        write_env(path, TEXT, bundle, force=False)
    assert {entry.name: entry.read_text() for entry in tmp_path.iterdir()} == {"it.env": "theirs"}
