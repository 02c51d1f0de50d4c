"""Settings: read from the environment, checked, frozen, and told about completely."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from serving import ROOT, environment

from service.settings import (
    Settings,
    SettingsError,
    load_settings,
    settings_markdown,
    settings_table,
    unknown_variables,
)

UNITS = ("bytes", "seconds", "candidates", "headers", "threads", "ratio", "tokens")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in environment() if name.startswith("REACTION_")]:
        monkeypatch.delenv(name)


def test_the_environment_is_read_and_the_command_line_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REACTION_BUNDLE", "from-environment")
    monkeypatch.setenv("REACTION_PORT", "81")
    monkeypatch.setenv("REACTION_HOST", "")  # empty stands for unset
    settings = load_settings(bundle=None, port="82")
    assert (settings.bundle, settings.port, settings.host) == (Path("from-environment"), 82, "127.0.0.1")


@pytest.mark.parametrize(
    "name", ["API_KEYS", "API_KEYS_FILE", "BUNDLE_KEYS_FILE", "TLS_CERTIFICATE_FILE", "TLS_KEY_FILE"]
)
def test_what_shuts_others_out_is_never_off_for_being_empty(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"REACTION_{name}", " ")
    with pytest.raises(SettingsError, match=f"REACTION_{name}: expected a value, or no such variable at all"):
        load_settings(bundle="b")


def test_settings_cannot_change_later() -> None:
    settings = load_settings(bundle="b")
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "REACTION_BUNDLE (or --bundle): expected a value, got none"),
        ({"bundle": "b", "port": -1}, "REACTION_PORT: expected greater than or equal to 0, got '-1'"),
        (
            {"bundle": "b", "max_body_bytes": "1MB"},
            "REACTION_MAX_BODY_BYTES: expected a valid integer, unable to parse string as an integer, got '1MB'",
        ),
        (
            {"bundle": "b", "request_log_ratio": 1.5},
            "REACTION_REQUEST_LOG_RATIO: expected less than or equal to 1, got '1.5'",
        ),
        ({"bundle": "b", "work_threads": 0}, "REACTION_WORK_THREADS: expected greater than or equal to 1, got '0'"),
    ],
)
def test_a_wrong_value_is_told_in_one_line_with_variable_expected_and_got(
    given: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        load_settings(**given)


def test_all_wrong_values_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(port=-1, work_threads=0)
    assert [part.split(":")[0] for part in str(caught.value).split("; ")] == [
        "REACTION_BUNDLE (or --bundle)",
        "REACTION_PORT",
        "REACTION_WORK_THREADS",
    ]


def test_every_setting_is_documented_and_names_its_unit() -> None:
    assert [row.variable for row in settings_table()] == [f"REACTION_{name.upper()}" for name in Settings.model_fields]
    for name, field in Settings.model_fields.items():
        assert field.description, name
        if field.annotation in (int, float) and name != "port":
            assert name.endswith(UNITS), f"{name} does not say its unit"
            assert name == "max_candidates" or any(name.endswith(unit) for unit in UNITS)


def test_the_table_can_be_printed() -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "service", "settings"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert outcome.stdout.strip() == settings_markdown()
    assert "| `REACTION_MAX_CANDIDATES` | `10000` |" in outcome.stdout


def test_variables_that_are_no_settings_are_found_with_what_they_may_have_meant() -> None:
    variables = {
        "REACTION_PROT": "1",
        "REACTION_ZZZ": "1",
        "REACTION_PORT": "1",
        "REACTION_DATA_DIR": "/data",
        "REACTION_SERVICE_HOST": "10.0.0.1",
        "REACTION_PORT_80_TCP": "tcp://10.0.0.1:80",
        "PATH": "/bin",
    }
    assert unknown_variables(variables) == {"REACTION_PROT": "REACTION_PORT", "REACTION_ZZZ": None}
