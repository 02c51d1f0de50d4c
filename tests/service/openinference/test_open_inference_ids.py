"""Tensors get the ids that `/score` gives to the same raw values, whatever datatype and form they travel in."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from fields_of_all_kinds import FIELDS, VOCABULARIES
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tensors_on_the_wire import CODES, HEADER, body, packed, tensor

from service.features import FeatureEncoder, MultiValuedField, NumericField, RequestError
from service.openinference.document import decode, split
from service.openinference.encode import TensorEncoder
from service.openinference.tensors import DATATYPES, Tensor

ENCODER = FeatureEncoder(FIELDS, VOCABULARIES).for_serving({"genres"})
TENSORS = TensorEncoder(ENCODER, max_candidates=100)
KNOWN = ["", "u1", "7", "a\nb\0", "a1", "a2", "x", "y", "x|y", "|x||", "unseen", "é", "\U0001f600", ":", '"a":']
HOUR = next(column.first for column in ENCODER.columns("context") if column.name == "hour")
INTEGERS = {name: DATATYPES[name].bounds for name in DATATYPES if "INT" in name}

texts = st.sampled_from(KNOWN) | st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
numeric_texts = st.sampled_from(["", "6", "12", "-0", "1e3", "2.5", "+7.", ".5", "5.999999999999999999"])
near_edges = st.sampled_from([0.0, -0.0, 1.0, 2.5, 6.0, 12.0, 5.9999999, 0.1, 5769.0])


@dataclass(frozen=True)
class Sent:
    """A tensor, and the raw values that it stands for."""

    tensor: dict[str, Any]
    raws: list[object]
    binary: bool


@st.composite
def values(draw: st.DrawFn, datatype: str, count: int, *, numeric: bool, binary: bool) -> list[Any]:
    """Elements as they are sent; a missing one is "" or NaN, and in JSON None too."""
    if datatype == "BYTES":
        one: st.SearchStrategy[Any] = numeric_texts if numeric else texts
    elif datatype in INTEGERS:
        low, high = INTEGERS[datatype]
        one = st.integers(low, high) | st.integers(max(low, -20), 20)
    else:
        width = 32 if datatype == "FP32" else 64
        one = st.floats(width=width, allow_nan=False, allow_infinity=False)
        one |= near_edges.map(lambda value: float(np.float32(value)) if width == 32 else value)
        if binary:
            one |= st.just(float("nan"))
    return draw(st.lists(one if binary else one | st.none(), min_size=count, max_size=count))


@st.composite
def sent(draw: st.DrawFn, field: Any, rows: int) -> Sent:
    numeric, binary = isinstance(field, NumericField), draw(st.booleans())
    datatype = draw(st.sampled_from([name for name in DATATYPES if numeric or not name.startswith("FP")]))
    listed = isinstance(field, MultiValuedField) and draw(st.booleans())
    width = draw(st.integers(1, 4)) if listed else 1
    data = draw(values(datatype, rows * width, numeric=numeric, binary=binary))
    raws: list[object] = [None if isinstance(value, float) and np.isnan(value) else value for value in data]
    if listed:
        raws = [[raw for raw in raws[at : at + width] if raw is not None] for at in range(0, len(raws), width)]
    column = not isinstance(field, MultiValuedField) and draw(st.booleans())
    shape = [rows, width] if listed else [rows, 1] if column else [rows]
    given = tensor(field.name, datatype, data, shape)
    if len(shape) > 1 and not binary and draw(st.booleans()):
        given["data"] = [data[at : at + width] for at in range(0, len(data), width)]
    return Sent(given, raws, binary)


@st.composite
def requests(draw: st.DrawFn) -> tuple[int, dict[str, Sent]]:
    count = draw(st.integers(1, 5) | st.just(33))  # from 33 on, numbers are encoded as arrays
    found: dict[str, Sent] = {}
    for field in draw(st.permutations(ENCODER.fields)):
        if draw(st.integers(0, 5)):
            shared = field.side == "context" and draw(st.booleans())
            found[field.name] = draw(sent(field, 1 if shared else count))
    if not any(len(one.raws) == count for one in found.values()):
        found["ad"] = draw(sent(ENCODER.field("ad"), count))
    return count, found


def ids(content: bytes, headers: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    length = int(headers[HEADER]) if HEADER in headers else None
    return TENSORS.encode(decode(split(content, length)), content, length)


@settings(max_examples=400, deadline=None)
@given(requests())
def test_ids_are_those_of_the_raw_values(request: tuple[int, dict[str, Sent]]) -> None:
    count, tensors = request
    binary = [name for name, one in tensors.items() if one.binary]
    content, headers = body([one.tensor for one in tensors.values()], binary=binary)
    context_ids, candidate_ids = ids(content, headers)

    def row(side: str, index: int) -> dict[str, object]:
        return {
            name: one.raws[index if len(one.raws) > 1 else 0]
            for name, one in tensors.items()
            if ENCODER.field(name).side == side
        }

    candidates = [row("candidate", index) for index in range(count)]
    contexts = [row("context", index) for index in range(len(context_ids))]
    assert np.array_equal(candidate_ids, ENCODER.encode_rows("candidate", candidates))
    assert np.array_equal(context_ids, ENCODER.encode_rows("context", contexts))
    several = count > 1 and any(
        len(one.raws) > 1 for name, one in tensors.items() if ENCODER.field(name).side == "context"
    )
    assert len(context_ids) == (count if several else 1)
    assert context_ids.dtype == candidate_ids.dtype == np.int32
    assert context_ids.flags.c_contiguous
    assert candidate_ids.flags.c_contiguous


@settings(max_examples=300, deadline=None)
@given(st.lists(texts, min_size=1, max_size=20))
@example(["a" * 255, "b" * 256, "c" * 65_536])
@example(["\0\0\0\0", "", "\x05\0\0\0"])
@example(["", "abcd", "efgh", "", "", "ijkl"])
@example(["\4\0\0\0", "abcd"])
@example(["abcd\0\0\0\0", "abcd\4\0\0\0"])
@example(["abc\0", "\0\0\0\0", "ab", "efgh"])
@example(["b" * 127, "", "c" * 127])
def test_texts_after_their_lengths_are_read_back(written: list[str]) -> None:
    data = packed("BYTES", written)
    read = Tensor("ad", DATATYPES["BYTES"], len(written), 1, False, None, b"head" + data + b"tail", 4, len(data))
    assert read.texts() == written


@settings(max_examples=500, deadline=None)
@given(st.lists(st.text("\0\1\2\3a", max_size=4), min_size=2, max_size=6))
def test_texts_that_look_like_lengths_are_read_back(written: list[str]) -> None:
    data = packed("BYTES", written)
    read = Tensor("ad", DATATYPES["BYTES"], len(written), 1, False, None, data, 0, len(data))
    assert read.texts() == written


# Mostly small bytes, which make lengths that fit.
@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=40) | st.lists(st.sampled_from(b"\0\0\0\0\1\2a"), max_size=30).map(bytes), st.integers(1, 4))
@example(b"\4\0\0\0abcd\5\0\0\0", 2)
@example(b"\4\0\0\0abcd\0\0\0\0", 1)
def test_bytes_that_are_no_texts_are_refused_with_their_place(data: bytes, count: int) -> None:
    read = Tensor("ad", DATATYPES["BYTES"], count, 1, False, None, data, 0, len(data))
    wanted: list[str] | None = []
    at = 0
    try:
        for _ in range(count):
            (length,) = struct.unpack("<I", data[at : at + 4])
            wanted.append(data[at + 4 :][:length].decode())
            at += 4 + length
    except (struct.error, UnicodeDecodeError):
        wanted = None
    if wanted is not None and at == len(data):
        assert read.texts() == wanted
    else:
        with pytest.raises(RequestError) as caught:
            read.texts()
        assert caught.value.where.startswith("inputs.ad.")


@pytest.mark.parametrize("datatype", CODES)
def test_every_numeric_datatype_is_little_endian_and_of_its_size(datatype: str) -> None:
    values = [0, 1, 100]
    read = Tensor(
        "hour",
        DATATYPES[datatype],
        3,
        1,
        False,
        None,
        packed(datatype, values),
        0,
        3 * struct.calcsize(CODES[datatype]),
    )
    assert read.numbers() == read.array().tolist() == values


def test_an_fp32_is_the_number_that_its_bits_say_in_json_as_in_binary() -> None:
    for binary in ([], ["hour"]):
        content, headers = body([tensor("hour", "FP32", [5.99999999, 6.0])], binary=binary)  # rounds up to the edge 6
        low, edge = ids(content, headers)[0][:, HOUR]
        assert low == edge
    content, headers = body([tensor("hour", "FP64", [5.99999999, 6.0])])
    low, edge = ids(content, headers)[0][:, HOUR]
    assert low != edge
