"""TOML files read strictly: a wrong one is refused with file, key path, expected and got, and a typo with its cure.

ConfigError
├── ConfigFileError     the file cannot be read
├── ConfigSyntaxError   it is no TOML; says line and column
└── ConfigValueError    a key is unknown, missing or holds what it may not
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)

LONGEST_GOT = 60


class ConfigError(ValueError):
    """A configuration file is not what it should be; the message says file, where, expected and got."""


class ConfigFileError(ConfigError):
    """The file is missing or is no readable text."""


class ConfigSyntaxError(ConfigError):
    """The file is no TOML."""


class ConfigValueError(ConfigError):
    """A key is unknown or missing, or its value is not allowed."""


def read_toml(path: Path, model: type[Model]) -> Model:
    """Read a TOML file into a model. Types are taken strictly: `"3"` is no integer.

    Raises:
        ConfigFileError: the file is missing or not UTF-8.
        ConfigSyntaxError: it is no TOML.
        ConfigValueError: the values do not fit the model; every misfit is listed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigFileError(f"{path}: expected UTF-8 text, got byte {error.object[error.start]:#04x}") from error
    except OSError as error:
        raise ConfigFileError(f"{path}: expected a TOML file, got {(error.strerror or str(error)).lower()}") from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigSyntaxError(_syntax_message(path, str(error))) from error
    try:
        # JSON is pydantic's strictest input that still takes an array for a tuple.
        return model.model_validate_json(json.dumps(document, default=str), strict=True)
    except ValidationError as error:
        lines = _messages(error.errors(include_url=False), document, model)
        raise ConfigValueError("\n".join(f"{path}: {line}" for line in lines)) from error


def write_toml(path: Path, values: Mapping[str, Any]) -> None:
    """Write a document as TOML; a None has no form there and must have been left out."""
    path.write_text(tomli_w.dumps(values), encoding="utf-8")


def misfits(error: ValidationError) -> list[str]:
    """What does not fit a model, a line each: key path, expected and got."""
    return _messages(error.errors(include_url=False), None, None)


def _syntax_message(path: Path, message: str) -> str:
    place = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    where = f"{path}: line {place[1]}, column {place[2]}" if place and place[1] else f"{path}: end of file"
    detail = message[: place.start()] if place else message
    return f"{where}: expected TOML, got a syntax error: {detail}"


def _messages(errors: Sequence[ErrorDetails], document: object, model: type[BaseModel] | None) -> list[str]:
    """One line a wrong key; the alternatives of a union come as several errors and are joined.

    Without the document and its model, paths may hold names of union members, and a typo gets no cure.
    """
    expected: dict[str, list[str]] = {}
    got: dict[str, str] = {}
    lines: dict[str, None] = {}
    for error in errors:
        kind, context = error["type"], error.get("ctx", {})
        present = error["loc"] if model is None else _present(error["loc"], document, keep_last=kind == "missing")
        where = _key_path(present)
        if kind == "extra_forbidden":
            known = "no such key, got one" if model is None else _unknown(error["loc"], document, model)
            lines[f"{where}: expected {known}"] = None
        elif kind == "missing":
            lines[f"{where}: expected this key, got none"] = None
        elif kind == "union_tag_not_found":
            lines[f"{where}.{_plain(context['discriminator'])}: expected this key, got none"] = None
        elif kind == "union_tag_invalid":
            key = f"{where}.{_plain(context['discriminator'])}"
            lines[f"{key}: expected one of {context['expected_tags']}, got {context['tag']!r}"] = None
        elif kind == "value_error":
            message = error["msg"].removeprefix("Value error, ")
            lines[f"{where}: {message}" if where else message] = None
        else:
            message = re.sub(r"^(Input|Value|\w+) should (be |have |match )?", "", error["msg"])
            expected.setdefault(where, []).append(message)
            got[where] = _shown(error["input"])
    for where, alternatives in expected.items():
        lines[f"{where}: expected {' or '.join(dict.fromkeys(alternatives))}, got {got[where]}"] = None
    return list(lines)


def _present(location: Sequence[int | str], document: object, *, keep_last: bool) -> list[int | str]:
    """The part of an error's location that is in the document: pydantic adds the names of union members."""
    kept: list[int | str] = []
    for place, part in enumerate(location):
        inside = (isinstance(document, dict) and part in document) or (
            isinstance(document, list) and isinstance(part, int) and part < len(document)
        )
        if inside:
            document = document[part]  # type: ignore[index]
            kept.append(part)
        elif keep_last and place == len(location) - 1:
            kept.append(part)
    return kept


def _unknown(location: Sequence[int | str], document: object, model: type[BaseModel]) -> str:
    models = {model}
    for part in location[:-1]:
        if isinstance(part, int):
            document = document[part] if isinstance(document, list) and part < len(document) else None
        elif isinstance(document, dict) and part in document:
            fields = [known.model_fields[part] for known in models if part in known.model_fields]
            models = {inner for field in fields for inner in _models_in(field.annotation)}
            document = document[part]
        else:  # the tag of a union: keep the member that it names
            models = {known for known in models if _is_tagged(known, part)} or models
    keys = sorted({key for known in models for key in known.model_fields})
    near = difflib.get_close_matches(str(location[-1]), keys, n=1)
    cure = f" (did you mean {near[0]}?)" if near else ""
    return f"one of the keys {', '.join(keys)}, got an unknown key{cure}"


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _is_tagged(model: type[BaseModel], tag: str) -> bool:
    annotations = [field.annotation for field in model.model_fields.values()]
    return any(get_origin(annotation) is Literal and tag in get_args(annotation) for annotation in annotations)


def _key_path(parts: Sequence[int | str]) -> str:
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{_quoted(part)}" if text else _quoted(part)
    return text


def _quoted(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _plain(discriminator: object) -> str:
    return str(discriminator).strip("'")


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST_GOT else text[: LONGEST_GOT - 1] + "…"
