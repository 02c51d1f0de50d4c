"""The documentation page: the OpenAPI document, written as plain HTML.

No script and nothing from another host: it works where the service runs, behind whatever lets nothing out.
"""

from __future__ import annotations

import json
import shlex
from html import escape
from typing import TYPE_CHECKING, Any, Final

from service.errors import PROBLEM_MEDIA_TYPE

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["render"]

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c1e21; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #d0d4da; padding-bottom: .3rem; }
pre { background: #f4f5f7; padding: .8rem 1rem; overflow-x: auto; border-radius: 4px; font-size: 14px; }
code { background: #f4f5f7; padding: 0 .2rem; } pre code { padding: 0; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .3rem .6rem; vertical-align: top;
border-bottom: 1px solid #e3e6ea; }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #e4e6ea; } pre, code { background: #22262c; }
td, th, h2 { border-color: #3a3f47; } a { color: #8ab4f8; } }
"""


def render(document: dict[str, Any], base: str) -> str:
    """The page.

    Args:
        document: The OpenAPI document.
        base: Address the page was asked at, for the commands.
    """
    info = document["info"]
    parts = [
        f"<h1>{escape(info['title'])}</h1>",
        f"<p>{escape(info.get('description', ''))}</p>",
        '<p>The same for machines: <a href="openapi.json"><code>/openapi.json</code></a>.</p>',
        "<h2>Endpoints</h2>",
        _table(
            ("", "", ""),
            [
                (f"<code>{m} {escape(p)}</code>", escape(o.get("summary", "")), _statuses(o))
                for p, m, o in _operations(document)
            ],
        ),
    ]
    for path, _, operation in _operations(document):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        answered = (
            operation["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("examples", {})
        )
        for name, example in content.get("examples", {}).items():
            parts.append(f"<h2>{escape(example['summary'])}</h2>")
            parts.append(_curl(base + _filled_in(path, operation), example["value"]))
            if name in answered:
                parts.append(f"<p>answers</p><pre><code>{escape(_json(answered[name]['value']))}</code></pre>")
    schemas = document.get("components", {}).get("schemas", {})
    for name in ("Context", "Candidate"):
        if name in schemas:
            parts.append(f"<h2>Fields of {escape(name.lower())}</h2>")
            rows = [
                (f"<code>{escape(field)}</code>", escape(schema.get("description", "")))
                for field, schema in schemas[name].get("properties", {}).items()
            ]
            parts.append(_table(("field", "values"), rows))
    parts.append("<h2>Errors</h2>")
    parts.append(
        "<p>All as <code>application/problem+json</code>, with <code>where</code>, <code>expected</code> and "
        "<code>got</code> where they are known; under <code>/v2</code> in the Open Inference Protocol's own form.</p>"
    )
    parts.append(_table(("status", "problems"), _errors(document)))
    head = f'<meta charset="utf-8"><title>{escape(info["title"])}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'


def _operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method.upper(), operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def _statuses(operation: dict[str, Any]) -> str:
    return escape(", ".join(operation["responses"]))


def _errors(document: dict[str, Any]) -> list[tuple[str, str]]:
    found = {}
    for _, _, operation in _operations(document):
        for status, response in operation["responses"].items():
            if status >= "400" and PROBLEM_MEDIA_TYPE in response.get("content", {}):
                found[status] = response["description"]
    return [(f"<code>{escape(status)}</code>", escape(text)) for status, text in sorted(found.items())]


def _filled_in(path: str, operation: dict[str, Any]) -> str:
    """A path with the example values of its parameters."""
    for parameter in operation.get("parameters", ()):
        path = path.replace(f"{{{parameter['name']}}}", str(parameter.get("example", parameter["name"])))
    return path


def _curl(url: str, body: Any) -> str:
    data = shlex.quote(_json(body))
    command = f"curl -s {shlex.quote(url)} -H 'Content-Type: application/json' -d {data}"
    return f"<pre><code>{escape(command)}</code></pre>"


def _json(value: Any) -> str:
    """JSON with one line for each member of the body: short, and still to be read."""
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    members = ",\n ".join(f"{json.dumps(name)}: {json.dumps(part, ensure_ascii=False)}" for name, part in value.items())
    return "{" + members + "}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head) if any(head) else ""
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table>{f'<tr>{top}</tr>' if top else ''}{body}</table>"
