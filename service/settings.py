"""Settings: read once from the environment (`REACTION_*`) and the command line, checked, then frozen.

`python -m service settings` prints the table below as Markdown, and the README is tested against it.
"""

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.bundle_format.manifest import Precision
from service.feedback.secret import SecretError, read_secrets

__all__ = ["Settings", "SettingsError", "load_settings", "settings_markdown", "settings_table", "unknown_variables"]

PREFIX: Final = "REACTION_"
# Read by other parts of the project, or put there by Kubernetes for a Service named "reaction".
_FOREIGN: Final = ("REACTION_DATA_DIR", "REACTION_REQUIRE_DATA")
# What shuts others out. Empty, they are a secret that did not come, and no wish to let everyone in.
_SHUTTING: Final = ("api_keys", "api_keys_file", "bundle_keys_file", "tls_certificate_file", "tls_key_file")


class SettingsError(ValueError):
    """A setting has a value it cannot have; the message names the variable, what it may hold and what it holds."""


def _no_service_link(value: Any) -> Any:
    """Kubernetes gives every pod `REACTION_PORT=tcp://10.0.0.1:80` if a Service is called "reaction"."""
    if isinstance(value, str) and value.startswith("tcp://"):
        raise ValueError("a port number (this is a Kubernetes service link; set enableServiceLinks: false)")
    return value


class Settings(BaseSettings):
    """All the service can be told. The unit of a quantity is in its name."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    bundle: Path = Field(description="Directory of the bundle to serve, or of a store of versions (required).")
    bundle_keys_file: Path | None = Field(
        None,
        description="File of Ed25519 public keys (PEM); when set, a bundle that none of them has signed is refused.",
    )
    api_keys: SecretStr | None = Field(
        None, description="API keys, separated by commas; when set, every route but the probes asks for one (401)."
    )
    api_keys_file: Path | None = Field(
        None, description="File of API keys, one a line, beside or instead of those; read again when it changes."
    )
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every IPv4 interface.")
    port: Annotated[int, BeforeValidator(_no_service_link)] = Field(
        8080, ge=0, le=65_535, description="TCP port to listen on; 0 takes a free one, which the log names."
    )
    tls_certificate_file: Path | None = Field(
        None, description="Certificate chain (PEM) to serve by TLS, 1.2 or later; its own first."
    )
    tls_key_file: Path | None = Field(None, description="Private key (PEM) of that; unset, in the same file.")
    max_body_bytes: int = Field(
        4 * 1024 * 1024, ge=1024, description="Longest request body; a longer one is refused while it is read (413)."
    )
    bodies_bytes: int = Field(
        128 * 1024 * 1024,
        ge=1024 * 1024,
        description="Most bytes of all bodies that a worker holds, on their way or waiting, and room for one at least; "
        "beyond it whoever has been sending for longest is refused (503).",
    )
    max_head_bytes: int = Field(
        16_384,
        ge=1024,
        description="Longest head of a request, line and headers; a longer one is refused (431).",
    )
    max_headers: int = Field(100, ge=8, description="Most headers of a request; more are refused (431).")
    head_seconds: float = Field(
        10, ge=0.1, description="How long a client may take to send a head, from its first byte on; then 408."
    )
    body_seconds: float = Field(30, ge=0.1, description="How long it may take after that to send the body; then 408.")
    answer_seconds: float = Field(
        30, ge=0.1, description="How long a client may take nothing of an answer before its connection is cut."
    )
    max_connections: int | None = Field(
        None,
        ge=1,
        description="Most open connections of a worker, at most (and unset) 64 fewer than it may have descriptors; "
        "beyond it the one idle for longest is closed for a new one.",
    )
    max_candidates: int = Field(10_000, ge=1, description="Most candidates in one request; more are refused (422).")
    inline_body_bytes: int = Field(
        65_536,
        ge=0,
        description="Bodies up to this length are scored on the event loop, longer ones in a worker thread.",
    )
    inline_candidates: int = Field(
        500,
        ge=1,
        description="Requests with more candidates are scored in a worker thread too, however short their bodies.",
    )
    queue_candidates: int = Field(
        100_000,
        ge=1,
        description="Most candidates of long bodies that wait for a worker thread (half of it for X-Request-Priority: "
        "low); more are refused (429).",
    )
    deadline_seconds: float = Field(
        2.0,
        ge=0.001,
        description="How long a request with a long body may take, unless its X-Request-Deadline-Ms says; one that "
        "cannot be scored by then is refused (503).",
    )
    workers: int | None = Field(
        None, ge=1, le=256, description="Processes that serve; unset, one for each whole CPU that memory allows."
    )
    huge_pages: bool = Field(
        True, description="Whether a worker asks the kernel for huge pages under its own memory once it is ready."
    )
    gzip_bytes: int = Field(
        16_384,
        ge=0,
        description="Answers of at least this length are gzip where the client takes that; shorter ones gain nothing.",
    )
    work_threads: int | None = Field(
        None, ge=1, le=256, description="Threads of a worker for long bodies; unset, by the CPUs a worker has."
    )
    model_threads: int | None = Field(
        None, ge=1, le=256, description="Threads ONNX Runtime uses inside one call; unset, one."
    )
    precision: Precision = Field(
        "float32", description="What the model's tables hold: float32, or float16 or int8 where the bundle has them."
    )
    coalesce: bool = Field(
        default=False,
        description="Requests that are queued already share one call of the model; `python -m service advise` measures "
        "whether that helps.",
    )
    coalesce_candidates: int = Field(64, ge=2, description="Most candidates in one shared call.")
    keep_alive_seconds: int = Field(
        75, ge=1, description="How long an idle connection stays open; longer than the balancer in front keeps it."
    )
    shutdown_seconds: int = Field(
        25, ge=1, description="How long requests in flight may take after SIGTERM before they are cut off."
    )
    drain_seconds: float = Field(
        5.0,
        ge=0.0,
        description="How long requests are still taken after SIGTERM, while readiness fails and balancers notice.",
    )
    idle_seconds: float = Field(
        5.0,
        ge=0.0,
        description="How long a worker that another version replaced keeps connections that nobody uses.",
    )
    watch_seconds: float = Field(
        1.0, ge=0.0, description="How often a store is looked at for another current version; 0 for on SIGHUP only."
    )
    reload_seconds: float = Field(
        300.0, gt=0.0, description="How long another version may take to become ready before it is refused."
    )
    patience_seconds: float = Field(
        10.0, gt=0.0, description="How long it gets ready with what those that serve leave, before it takes its share."
    )
    hang_seconds: float = Field(
        30.0, ge=0.0, description="How long one of several workers may stand still before it is replaced; 0 for ever."
    )
    shadow_seconds: float = Field(
        10.0, gt=0.0, description="How long a shadow may take for one request before its process is replaced."
    )
    admin_socket: Path | None = Field(
        None,
        description="Path of a Unix socket for the admin API (status, reload, rollback, trials), its owner's alone.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe event logged.")
    request_log_ratio: float = Field(
        0.01, ge=0.0, le=1.0, description="Share of scoring requests that get a log line of their own, drawn at random."
    )
    server_timing: bool = Field(
        default=False, description="Whether answers with scores say in `Server-Timing` how long their stages took."
    )
    trace_url: str | None = Field(
        None,
        description="OpenTelemetry collector to send spans to by OTLP/HTTP, such as http://otel:4318; unset, none go.",
    )
    trace_ratio: float = Field(
        0.01,
        ge=0.0,
        le=1.0,
        description="Share of requests that are traced where `traceparent` leaves it open, drawn at random.",
    )
    record_directory: Path | None = Field(
        None,
        description="Directory where sampled requests are recorded whole, to be replayed; they hold what clients send, "
        "personal data included.",
    )
    record_ratio: float = Field(
        0.0, ge=0.0, le=1.0, description="Share of scored requests that are recorded, drawn at random; 0 for none."
    )
    record_bytes: int = Field(
        1024 * 1024 * 1024,
        ge=1024 * 1024,
        description="Size of all files in that directory at which the oldest is removed.",
    )
    feedback_secret: SecretStr = Field(
        SecretStr(""),
        description="Signs feedback tokens: 16 bytes or more, the same for all replicas; several with blanks between "
        "are all taken, the first signs. Without one feedback is off.",
    )
    feedback_secret_file: Path | None = Field(None, description="The same from a file; unset, from the variable.")
    feedback_ratio: float = Field(
        0.0, ge=0.0, le=1.0, description="Share of answers of `/score` that carry feedback tokens, drawn at random."
    )
    feedback_candidates: int = Field(
        100, ge=1, description="Most tokens in an answer: a longer ranking gets them for its best, other answers none."
    )
    feedback_window_seconds: int = Field(
        3600, ge=1, description="How long a token is taken back; what was shown counts as not clicked only after it."
    )
    feedback_remembered_tokens: int = Field(
        65_536,
        ge=1024,
        le=262_144,
        description="Tokens of a window that are remembered, to tell those that come twice.",
    )


class SettingRow(NamedTuple):
    """One line of the documented table."""

    variable: str
    default: str
    description: str


def load_settings(**given: Any) -> Settings:
    """Read the environment, let what was given on the command line win, check everything.

    Args:
        given: Settings by name; None stands for "not given".

    Raises:
        SettingsError: One line that names every variable that is wrong.
    """
    for variable in (f"{PREFIX}{name.upper()}" for name in _SHUTTING):
        if not os.environ.get(variable, "unset").strip():
            raise SettingsError(f"{variable}: expected a value, or no such variable at all, got an empty one")
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise SettingsError("; ".join(_complaints(error))) from None
    try:
        secrets = read_secrets(settings.feedback_secret.get_secret_value(), settings.feedback_secret_file)
    except SecretError as error:
        raise SettingsError(str(error)) from None
    if settings.feedback_ratio and not secrets:
        raise SettingsError(f"{PREFIX}FEEDBACK_RATIO: expected {PREFIX}FEEDBACK_SECRET or its file too, got neither")
    url = urlsplit(settings.trace_url or "http://none")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise SettingsError(f"{PREFIX}TRACE_URL: expected http://HOST[:PORT][/PATH], got {settings.trace_url!r}")
    if url.username is not None:  # settings are logged
        raise SettingsError(f"{PREFIX}TRACE_URL: expected http://HOST[:PORT][/PATH], got one with a user's name")
    if settings.record_ratio and settings.record_directory is None:
        raise SettingsError(f"{PREFIX}RECORD_RATIO: expected {PREFIX}RECORD_DIRECTORY too, got none")
    return settings


def _complaints(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False):
        name = str(fault["loc"][0]) if fault["loc"] else "settings"
        if fault["type"] == "missing":
            yield f"{PREFIX}{name.upper()} (or --{name.replace('_', '-')}): expected a value, got none"
        else:
            wanted = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            yield f"{PREFIX}{name.upper()}: expected {wanted}, got {str(fault['input'])[:100]!r}"


def unknown_variables(environment: Mapping[str, str] = os.environ) -> dict[str, str | None]:
    """Variables that look like settings but are none, each with the setting it may have meant.

    A misspelt limit would otherwise be ignored in silence.
    """
    known = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]
    strays = [
        name
        for name in environment
        if name.startswith(PREFIX)
        and name not in known
        and name not in _FOREIGN
        and not name.startswith((f"{PREFIX}SERVICE_", f"{PREFIX}PORT_"))
    ]
    return {name: _closest(name, known) for name in sorted(strays)}


def _closest(variable: str, known: list[str]) -> str | None:
    """The setting a variable may have meant; the prefix they all share makes none of them likelier."""
    names = [name.removeprefix(PREFIX) for name in known]
    matches = difflib.get_close_matches(variable.removeprefix(PREFIX), names, n=1)
    return f"{PREFIX}{matches[0]}" if matches else None


def settings_table() -> list[SettingRow]:
    """Every setting with its variable, default and description, in the order of the class."""
    rows = []
    for name, field in Settings.model_fields.items():
        unset = "(planned)" if int in get_args(field.annotation) else "(none)"
        default = "(required)" if field.is_required() else unset if field.default is None else str(field.default)
        rows.append(SettingRow(f"{PREFIX}{name.upper()}", default, field.description or ""))
    return rows


def settings_markdown() -> str:
    """The table as Markdown."""
    lines = ["| variable | default | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{row.variable}` | `{row.default}` | {row.description} |" for row in settings_table()]
    return "\n".join(lines)
