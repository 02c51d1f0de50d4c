"""A bundle reads nothing but its own files, is read as nothing but what it is, and is what was digested."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper
from test_bundle import GOOD_LINE, change, replace

from service.bundle import BundleChangedError, BundleCorruptError, BundleError, BundleFormatError, read_bundle
from service.bundle_format import files as bundle_files
from service.bundle_format import graph_files, strict_json
from service.bundle_format.graph_files import external_data
from service.features.files import PathError, read_file
from service.scorer import Scorer, SelfTestError


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A bundle that a test may spoil."""
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def with_outside_data(path: Path, location: str, **more: str) -> None:
    """Make the first table of the graph one that lies elsewhere."""
    model = onnx.load(path / "model.onnx")
    table = model.graph.initializer[1]
    (path / "tables").write_bytes(table.raw_data)
    table.ClearField("raw_data")
    table.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        table.external_data.add(key=key, value=value)
    replace(path, "model.onnx", model.SerializeToString())


def list_tables(path: Path) -> None:
    change(path, lambda m: m["files"].update({"tables": {"sha256": "0" * 64, "bytes": 1}}))
    replace(path, "tables", (path / "tables").read_bytes())


# --- external data


def test_data_beside_the_graph_is_read_if_the_manifest_names_it(copy: Path) -> None:
    with_outside_data(copy, "tables")
    with pytest.raises(BundleCorruptError, match="expected only files of the manifest, got 'tables' beside them"):
        read_bundle(copy)
    list_tables(copy)
    assert Scorer(read_bundle(copy)).self_test().rows == 9


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "../copy/tables",
        "./tables",
        "tables ",
        "TABLES",
        "",
        "*/_ORT_MEM_ADDR_/*",
        "manifest.json",
        "x\0y",
    ],
)
def test_data_from_anywhere_else_is_refused_before_the_graph_is_loaded(copy: Path, location: str) -> None:
    with_outside_data(copy, location)
    list_tables(copy)
    with pytest.raises(BundleCorruptError, match=r"model.onnx: expected data in files of the manifest, got "):
        read_bundle(copy)


@pytest.mark.parametrize(("key", "value"), [("offset", "-1"), ("offset", "9" * 19), ("length", "1e9"), ("offset", "٣")])
def test_data_beyond_every_file_is_refused(copy: Path, key: str, value: str) -> None:
    with_outside_data(copy, "tables", **{key: value})
    list_tables(copy)
    with pytest.raises(BundleCorruptError, match=f"model.onnx: expected data within a file, got {key}"):
        read_bundle(copy)


def outside(name: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=name)
    return tensor


def sparse(name: str) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(outside(name), outside(f"{name} too"), [1])


def everywhere() -> onnx.ModelProto:
    """A graph with a tensor's data outside in every place that a format of ONNX has for a tensor."""
    inner = helper.make_graph([], "inner", [], [], [outside("in a subgraph")])
    node = helper.make_node("Any", [], [], value=outside("attribute"), body=inner)
    for name, value in (("tensors", [outside("of several")]), ("graphs", [inner])):
        node.attribute.append(helper.make_attribute(name, value))
    for name, several in (("one", False), ("more", True)):
        attribute = onnx.AttributeProto(name=name)
        if several:
            attribute.sparse_tensors.append(sparse("sparse attributes"))
        else:
            attribute.sparse_tensor.CopyFrom(sparse("sparse attribute"))
        node.attribute.append(attribute)
    graph = helper.make_graph([node], "g", [], [], [outside("initializer")], sparse_initializer=[sparse("sparse")])
    function = helper.make_function("d", "f", [], [], [node], [], attribute_protos=[node.attribute[0]])
    model = helper.make_model(graph, functions=[function])
    model.training_info.add(initialization=inner, algorithm=helper.make_graph([], "a", [], [], [outside("algorithm")]))
    return model


def by_reflection(message: Message) -> list[tuple[str, str]]:
    """The same walk by the descriptors that the library for graphs carries."""
    if isinstance(message, onnx.StringStringEntryProto):
        return [(message.key, message.value)]
    found: list[tuple[str, str]] = []
    for field, value in message.ListFields():
        if field.message_type is not None and field.name != "metadata_props":
            for inner in value if field.is_repeated else [value]:
                found += by_reflection(inner)
    return found


def test_every_place_of_a_tensor_is_looked_at() -> None:
    model = everywhere()
    found = list(external_data(memoryview(model.SerializeToString())))
    assert len(found) > 20
    assert sorted(found) == sorted(by_reflection(model))


def test_every_message_that_may_hold_a_tensor_is_in_the_table() -> None:
    def leads(descriptor: Any, seen: tuple[str, ...] = ()) -> bool:
        if descriptor.name == "TensorProto":
            return True
        return descriptor.name not in seen and any(
            leads(field.message_type, (*seen, descriptor.name)) for field in descriptor.fields if field.message_type
        )

    for name in set(graph_files._INSIDE) - {"TensorProto", "StringStringEntryProto"}:
        fields = getattr(onnx, name).DESCRIPTOR.fields
        expected = {f.number: f.message_type.name for f in fields if f.message_type and leads(f.message_type)}
        assert graph_files._INSIDE[name] == expected, name


def test_a_key_given_twice_hides_nothing() -> None:
    entry = b"\x0a\x08location\x12\x04good\x12\x03bad"  # a reader takes the last value
    tensor = b"\x6a" + bytes([len(entry)]) + entry
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    model = b"\x3a" + bytes([len(graph)]) + graph
    assert set(external_data(memoryview(model))) == {("location", "good"), ("location", "bad")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a graph, got"),
        (b"\xff" * 20, "expected a number that ends"),
        (b"\x3a\xff\x01", "expected 255 bytes at 3, got 0"),
        (b"\x3b", "expected a wire type that ONNX uses, got 3"),
        (b"\x00\x01", "expected a field number, got 0"),
        (b"\x3a\x03\x2a\x7f\x00", "expected 127 bytes"),
        (b"ORTM" * 20, "expected a graph, got expected"),
    ],
)
def test_what_is_no_graph_is_refused(copy: Path, content: bytes, message: str) -> None:
    replace(copy, "model.onnx", content)
    with pytest.raises(BundleFormatError, match=f"{copy / 'model.onnx'}: .*{message}"):
        read_bundle(copy)


@pytest.mark.parametrize("name", [b"context_rows", b"context_ids", b"pctr"])
def test_a_name_in_a_graph_that_is_no_text_is_refused(copy: Path, name: bytes) -> None:
    content = (copy / "model.onnx").read_bytes()
    replace(copy, "model.onnx", content.replace(name, b"\xff" * len(name)))
    with pytest.raises(BundleFormatError, match=r"model.onnx: expected "):
        Scorer(read_bundle(copy))


def test_a_graph_within_a_graph_without_end_is_refused() -> None:
    content = b""
    for _ in range(60):  # a node's attribute's graph, again and again
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            length, size = len(content), b""
            while length > 127:
                size, length = size + bytes([length & 127 | 128]), length >> 7
            content = tag + size + bytes([length]) + content
    model = helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString()
    deep = b"\x3a" + bytes([len(content) & 127 | 128, len(content) >> 7]) + content
    with pytest.raises(ValueError, match="expected at most 100 levels, got more"):
        list(external_data(memoryview(model + deep)))


# --- between digest and use


@pytest.mark.parametrize("name", ["model.onnx", "vocabularies/000.safetensors", "golden.jsonl"])
def test_a_file_replaced_after_its_digest_is_noticed(copy: Path, tmp_path: Path, name: str) -> None:
    read = read_bundle(copy)
    shutil.copy(copy / name, tmp_path / "same")
    (tmp_path / "same").rename(copy / name)  # even by its equal
    with pytest.raises(BundleChangedError, match=f"^{copy / name}: expected the file that was digested, got one that"):
        Scorer(read)


def test_a_file_written_to_and_dated_back_is_noticed(copy: Path) -> None:
    read = read_bundle(copy)
    before = (copy / "model.onnx").stat()
    with (copy / "model.onnx").open("r+b") as file:
        file.write(file.read(1))
    os.utime(copy / "model.onnx", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(
        BundleChangedError, match=r"model.onnx: expected the file that was digested, got one that changed"
    ):
        Scorer(read)


def test_a_folder_exchanged_for_another_is_noticed(copy: Path, bundle: Path) -> None:
    read = read_bundle(copy)
    (copy / "vocabularies").rename(copy / "old")
    shutil.copytree(bundle / "vocabularies", copy / "vocabularies")
    with pytest.raises(BundleChangedError, match="vocabularies"):
        Scorer(read)


def test_a_signature_that_comes_meanwhile_changes_nothing(copy: Path) -> None:
    read = read_bundle(copy)
    (copy / "manifest.sig").write_text("whatever: no key was pinned")
    assert Scorer(read).self_test().rows == 9


# --- what is parsed


@pytest.mark.parametrize("name", ["manifest.json", "features.json", "golden.jsonl", "reference.json"])
def test_a_file_longer_than_any_of_its_kind_is_not_read(copy: Path, name: str) -> None:
    with (copy / name).open("r+b") as file:
        file.truncate(1 << 31)  # a hole: it takes no disk
    if name != "manifest.json":
        change(copy, lambda m: m["files"][name].update(bytes=1 << 31))
    with pytest.raises(BundleFormatError, match=rf"{name}: expected at most 33554432 bytes, got {1 << 31}"):
        read_bundle(copy, verify=False)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("manifest.json", '"output":', '"output": "pctr", "output":', "once in an object, got 'output' twice"),
        ("features.json", '"version":', '"version": 1, "version":', "once in an object, got 'version' twice"),
        ("golden.jsonl", '"pctr":', '"pctr":0.5,"pctr":', "once in an object, got 'pctr' twice"),
        ("reference.json", '"rows":', '"rows": 1, "rows":', "once in an object, got 'rows' twice"),
        ("manifest.json", '"tolerance":', '"x": 1e999, "tolerance":', "out of range"),
        ("reference.json", '"rows":', '"x": 1e999, "rows":', "expected a number in the float64 range, got 1e999"),
        ("reference.json", '"rows":', f'"x": {"1" * 5000}, "rows":', "Exceeds the limit"),
        ("manifest.json", '"tolerance":', f'"x": {"[" * 70 + "]" * 70}, "tolerance":', "at most 64 levels, got more"),
    ],
)  # fmt: skip
def test_json_that_two_readers_may_take_differently_is_refused(
    copy: Path, name: str, old: str, new: str, message: str
) -> None:
    text = (copy / name).read_text()
    assert old in text
    if name == "manifest.json":
        (copy / name).write_text(text.replace(old, new, 1))
    else:
        replace(copy, name, text.replace(old, new, 1).encode())
    with pytest.raises(BundleFormatError, match=f"{name}[^/]*{message}"):
        read_bundle(copy)


def test_nesting_is_counted_by_its_levels_not_by_its_length() -> None:
    assert strict_json.loads(b"[" * 64 + b"]" * 64)
    assert len(strict_json.loads(b"[" + b"[[]]," * 1000 + b"[]]")) == 1001
    with pytest.raises(ValueError, match="expected at most 64 levels"):
        strict_json.loads(b"[" * 65 + b"1" + b"]" * 65)


@pytest.mark.parametrize("name", ["\ud800", "a\nb", "a\u202eb", "manifest.json", "manifest.sig"])
def test_a_name_that_is_no_plain_text_or_not_the_manifest_s_to_give_is_refused(copy: Path, name: str) -> None:
    change(copy, lambda m: m["files"].update({name: {"sha256": "0" * 64, "bytes": 1}}))
    with pytest.raises(BundleError):
        read_bundle(copy)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda r: r.update(fields=3), "Expected `object`, got `int`"),
        (lambda r: r.update(fields={"user": {"missing": "x"}}), "Expected `float`, got `str`"),
        (lambda r: r.update(fields={"user": {"missing": 2}}), "Expected `float` <= 1.0"),
        (lambda r: r.update(base_rate=[]), "Expected `float | null`, got `array`"),
        (lambda r: r.update(score_histogram=3), "Expected `object`, got `int`"),
        (lambda r: r.update(score_histogram=None), "Expected `object`, got `null`"),
        (lambda r: r.update(fields={"user": {"histogram": None}}), "Expected `object`, got `null`"),
        (lambda r: r["score_histogram"].update(edges=[0.5, 0.1]), "expected rising edges, one more than counts"),
        (lambda r: r["score_histogram"].update(edges=list(range(400))), "Expected `array` of length <= 257"),
        (lambda r: r.update(fields={"user": {"histogram": {"ids": [1], "counts": []}}}), "as many ids as counts"),
    ],
)  # fmt: skip
def test_statistics_that_no_metric_could_show_are_refused(
    copy: Path, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    document = json.loads((copy / "reference.json").read_text())
    edit(document)
    replace(copy, "reference.json", json.dumps(document).encode())
    with pytest.raises(BundleFormatError, match=rf"reference.json: .*{message.replace('|', '[|]')}"):
        read_bundle(copy)


@pytest.mark.parametrize("number", [-1, 2**31, 10**30])
def test_a_golden_id_that_no_matrix_holds_is_refused(copy: Path, number: int) -> None:
    replace(copy, "golden.jsonl", json.dumps(GOOD_LINE | {"context_ids": [0, number]}).encode())
    with pytest.raises(BundleFormatError, match=r"golden.jsonl, line 1: "):
        read_bundle(copy)


@pytest.mark.parametrize("context", [{"nobody": 1}, {"user": 1.5}, {"user": {"a": []}}, {"hour": "late"}])
def test_golden_values_that_no_field_takes_fail_the_self_test(copy: Path, context: dict[str, Any]) -> None:
    replace(copy, "golden.jsonl", json.dumps(GOOD_LINE | {"context": context}).encode())
    with pytest.raises(SelfTestError, match="golden rows: "):
        Scorer(read_bundle(copy)).self_test()


def test_a_pipe_a_directory_and_a_device_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(__file__)
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(PathError, match="expected a regular file, got something else"):
            read_file(path, 10)
    with pytest.raises(OSError, match=r"symbolic links|Too many levels"):
        read_file(tmp_path / "link", 10_000_000)
    assert bundle_files.LARGEST_JSON == 1 << 25
