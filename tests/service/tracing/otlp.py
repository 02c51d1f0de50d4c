"""A little collector: takes OTLP/HTTP, and reads it by the field names and types of opentelemetry-proto 1."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

if TYPE_CHECKING:
    from collections.abc import Iterator

_KINDS = {"string": 9, "fixed64": 6, "int64": 3, "double": 1, "bool": 8, "int32": 5}
# Message: field: number and type. Ids are bytes there, and hexadecimal text in JSON by OTLP's own rule.
_MESSAGES = {
    "ExportTraceServiceRequest": {"resource_spans": (1, ["ResourceSpans"])},
    "ResourceSpans": {"resource": (1, "Resource"), "scope_spans": (2, ["ScopeSpans"])},
    "Resource": {"attributes": (1, ["KeyValue"])},
    "ScopeSpans": {"scope": (1, "InstrumentationScope"), "spans": (2, ["Span"])},
    "InstrumentationScope": {"name": (1, "string"), "version": (2, "string")},
    "Span": {
        "trace_id": (1, "string"),
        "span_id": (2, "string"),
        "trace_state": (3, "string"),
        "parent_span_id": (4, "string"),
        "name": (5, "string"),
        "kind": (6, "int32"),
        "start_time_unix_nano": (7, "fixed64"),
        "end_time_unix_nano": (8, "fixed64"),
        "attributes": (9, ["KeyValue"]),
        "status": (15, "Status"),
    },
    "Status": {"message": (2, "string"), "code": (3, "int32")},
    "KeyValue": {"key": (1, "string"), "value": (2, "AnyValue")},
    "AnyValue": {
        "string_value": (1, "string"),
        "bool_value": (2, "bool"),
        "int_value": (3, "int64"),
        "double_value": (4, "double"),
    },
}


def _request_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="otlp.proto", package="otlp", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            several = isinstance(kind, list)
            plain = kind[0] if isinstance(kind, list) else kind
            added = message.field.add(name=field, number=number, label=3 if several else 1)
            added.type = _KINDS.get(plain, 11)
            if added.type == 11:
                added.type_name = f".otlp.{plain}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("otlp.ExportTraceServiceRequest"))


class Collector:
    """What was received; `status` is what it answers."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.status = 200
        self.refused = 0
        self.url = ""

    def take(self, path: str, media_type: str, body: bytes) -> int:
        assert (path, media_type) == ("/v1/traces", "application/json")
        if self.status != 200:
            self.refused += 1
            return self.status
        request = json_format.Parse(body.decode(), _request_class()())
        for group in request.resource_spans:
            self.resources.append(attributes(group.resource))
            for scope in group.scope_spans:
                self.spans += scope.spans
        return 200


def attributes(holder: Any) -> dict[str, Any]:
    found = {}
    for pair in holder.attributes:
        ((_, value),) = pair.value.ListFields()
        found[pair.key] = value
    return found


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """A running one."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = collector.take(self.path, self.headers["content-type"], body)
            self.send_response(status)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
