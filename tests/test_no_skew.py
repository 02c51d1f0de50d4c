"""One value, one id, whichever way it came in: rows, columns, values, CSV, Parquet, JSON, MessagePack.

The reference is written out here, from the contract alone, and shares no code with the encoder.
"""

import json
import math
import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.features import (
    CategoricalField,
    FeatureEncoder,
    FieldValueError,
    HashedVocabulary,
    MultiValuedField,
    NumericField,
    Vocabulary,
)

EDGES = (-1e300, -1.0, 0.0, 5e-324, 0.1, 1.0, 14.0, 1e15, 2.0**53, 1e300)
TOKENS = ["14", "007", "7", "-1", "a", "é", "\U0001d4b3", "a\nb", "a\0b", "1.0", "True", "None", "0", " "]
TAGS = ["a", "14", "é", "x y", "\0"]
FIELDS = (
    CategoricalField("word", "candidate"),
    CategoricalField("packed", "candidate"),
    CategoricalField("hashed", "candidate"),
    NumericField("number", "candidate", EDGES),
    MultiValuedField("tags", "candidate", 3),
)
ENCODER = FeatureEncoder(
    FIELDS,
    {
        "word": Vocabulary(TOKENS),
        "packed": Vocabulary(TOKENS, packed=True),
        "hashed": HashedVocabulary(1000),
        "number": Vocabulary([str(bucket) for bucket in range(len(EDGES) + 1)]),
        "tags": Vocabulary(TAGS, 3),
    },
)
NAMES = [field.name for field in FIELDS]


class RefusedError(Exception):
    """The contract has no id for the value."""


def text_of(raw: Any) -> str:
    if type(raw) is str:
        if any("\ud800" <= character <= "\udfff" for character in raw):
            raise RefusedError
        return raw
    if type(raw) is int and abs(raw) < 10**640:
        return ("-" if raw < 0 else "") + "".join(chr(48 + digit) for digit in digits_of(abs(raw)))
    raise RefusedError


def digits_of(number: int) -> list[int]:
    digits = [number % 10]
    while number := number // 10:
        digits.append(number % 10)
    return digits[::-1]


def id_of(name: str, token: str) -> int:
    if name == "hashed":
        return ENCODER.vocabulary("hashed").id(token)
    known, first = (TAGS, 3) if name == "tags" else (TOKENS, 2)
    return known.index(token) + first if token in known else 1


def bucket_id(raw: Any) -> int:
    if type(raw) is str:
        if not re.fullmatch(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?", raw):
            raise RefusedError
        exponent = re.search(r"[eE]([-+]?[0-9]+)$", raw)
        if exponent and len(exponent[1]) > 5:  # too large for an exact fraction
            if not re.search(r"[1-9]", raw[: exponent.start()]) or exponent[1].startswith("-"):
                return 2 + sum(edge <= 0 for edge in EDGES)
            raise RefusedError
    elif type(raw) not in {int, float} or not -math.inf < raw < math.inf:
        raise RefusedError
    exact = Fraction(raw)
    try:
        value = float(exact)  # rounded to the nearest float64, as any correct reader of numbers does
    except OverflowError:
        raise RefusedError from None
    return 2 + sum(Fraction(edge) <= Fraction(value) for edge in EDGES)


def expected_ids(name: str, raw: Any) -> list[int]:
    if name == "number":
        return [0 if raw is None or raw == "" else bucket_id(raw)]
    if name != "tags":
        return [0 if raw is None or raw == "" else id_of(name, text_of(raw))]
    parts = [] if raw is None else [text_of(part) for part in raw] if type(raw) is list else text_of(raw).split("|")
    ids = [id_of(name, part) for part in parts if part][:3] or [0]
    return ids + [2] * (3 - len(ids))


any_text = st.text(max_size=6) | st.text(st.sampled_from("\ud800\udfff\0\n|\u2028é1"), max_size=3)
numeric_text = st.from_regex(r"[+-]?[0-9]{0,4}\.?[0-9]{0,4}([eE][+-]?[0-9]{1,3})?", fullmatch=True)
integers = st.integers(-(2**66), 2**66) | st.integers(-20, 20) | st.sampled_from([10**400, -(10**640), 10**639])
numbers = integers | st.floats() | st.sampled_from([*EDGES, -0.0, *(math.nextafter(e, -math.inf) for e in EDGES)])
scalars = st.none() | any_text | st.sampled_from(TOKENS) | numeric_text | numbers | st.booleans()
raws = scalars | st.lists(scalars, max_size=5) | st.dictionaries(any_text, st.none(), max_size=1)
accepted = {
    "word": st.none() | st.sampled_from([*TOKENS, ""]) | st.text(max_size=6) | st.integers(-20, 20),
    "number": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**66), 2**66)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr) | st.sampled_from(["", "14", "+.5", "1e15"]),
    "tags": st.none() | st.lists(st.sampled_from([*TAGS, "new", ""]) | st.integers(0, 20), max_size=5)
    | st.lists(st.sampled_from(TAGS), max_size=5).map("|".join) | st.integers(0, 20),
}  # fmt: skip
good_rows = st.fixed_dictionaries({}, optional={name: accepted.get(name, accepted["word"]) for name in NAMES})


@settings(max_examples=400)
@given(raws)
@example("\ud800")
@example(["a", "\udfff"])
@example(1.0)
@example(True)
@example("1e999")
@example("9" * 4000)
@example(10**5000)
@example([1, True])
def test_a_value_has_the_ids_of_the_contract_or_is_refused_by_every_form(raw: Any) -> None:
    for name in NAMES:
        column, row = {name: [raw, None, raw]}, {name: raw}
        try:
            expected = expected_ids(name, raw)
        except RefusedError:
            with pytest.raises(FieldValueError, match=rf"^{name}\[1\]"):
                ENCODER.encode_values(name, [None, raw])
            with pytest.raises(FieldValueError, match=rf"^candidates\.{name}\[0\]"):
                ENCODER.encode_columns("candidate", column, 3)
            with pytest.raises(FieldValueError, match=rf"^candidates\[0\]\.{name}"):
                ENCODER.encode_rows("candidate", [row])
            with pytest.raises(FieldValueError, match=rf"^candidates\[1\]\.{name}"):
                ENCODER.encode_rows("candidate", [{}, row])
            continue
        place = next(c for c in ENCODER.columns("candidate") if c.name == name)
        part = slice(place.first, place.first + place.width)
        assert ENCODER.encode_values(name, [raw]).tolist() == [expected]
        assert ENCODER.encode_values(name, [raw, None, raw]).tolist()[2] == expected
        assert ENCODER.encode_columns("candidate", column, 3)[2, part].tolist() == expected
        assert ENCODER.encode_columns("candidate", {name: [raw]}, 1)[0, part].tolist() == expected
        assert ENCODER.encode_rows("candidate", [row])[0, part].tolist() == expected
        assert ENCODER.encode_rows("candidate", [{}, row])[1, part].tolist() == expected


@settings(max_examples=200)
@given(st.sampled_from(NAMES), st.lists(scalars | st.lists(scalars, max_size=2), min_size=1, max_size=6))
@example("number", ["1.5", 1, 1.0, True])
@example("word", ["a", 1, 1.0])
@example("word", [1, True])
@example("packed", [None, 0, False])
def test_a_column_of_all_sorts_of_values_is_refused_at_its_first_fault(name: str, raws: list[Any]) -> None:
    expected: list[list[int]] = []
    try:
        for raw in raws:
            expected.append(expected_ids(name, raw))  # noqa: PERF401 - its length is the place of the fault
    except RefusedError:
        with pytest.raises(FieldValueError, match=rf"^{name}\[{len(expected)}\]"):
            ENCODER.encode_values(name, raws)
        with pytest.raises(FieldValueError, match=rf"^candidates\[{len(expected)}\]\.{name}"):
            ENCODER.encode_rows("candidate", [{name: raw} for raw in raws])
    else:
        assert ENCODER.encode_values(name, raws).tolist() == expected


@settings(max_examples=200)
@given(st.lists(good_rows, min_size=1, max_size=8))
def test_rows_are_columns_are_values_row_by_row(rows: list[dict[str, Any]]) -> None:
    expected = [[i for name in NAMES for i in expected_ids(name, row.get(name))] for row in rows]
    columns = {name: [row.get(name) for row in rows] for name in NAMES}
    assert ENCODER.encode_rows("candidate", rows).tolist() == expected
    assert ENCODER.encode_columns("candidate", columns, len(rows)).tolist() == expected
    for row, ids in zip(rows, expected, strict=True):
        assert ENCODER.encode_rows("candidate", [row]).tolist() == [ids]
    for place in ENCODER.columns("candidate"):
        values = ENCODER.encode_values(place.name, columns[place.name])
        assert values.tolist() == [ids[place.first : place.first + place.width] for ids in expected]


@settings(max_examples=100)
@given(st.lists(good_rows, min_size=1, max_size=4))
def test_a_row_that_crossed_json_or_messagepack_has_the_same_ids(rows: list[dict[str, Any]]) -> None:
    expected = ENCODER.encode_rows("candidate", rows)
    crossings = [json.loads(json.dumps(rows)), msgspec.json.decode(msgspec.json.encode(rows))]
    integers_of = [value for row in rows for value in row.values() if type(value) is int]
    if all(-(2**63) <= value < 2**64 for value in integers_of):  # MessagePack has no larger ones
        crossings.append(msgspec.msgpack.decode(msgspec.msgpack.encode(rows)))
    for crossed in crossings:
        assert (ENCODER.encode_rows("candidate", crossed) == expected).all()


def test_the_same_value_from_csv_parquet_and_json_has_the_same_id(tmp_path: Path) -> None:
    words = ["007", "7", "14", "a", "é", "\U0001d4b3", "a\nb", "unseen", None]
    counts = [7, 7, 14, -1, 0, 2**53 + 1, 14, -3, None]
    tags = ["a|14", "14", "é|é|a|x y", None, "a", "new", "a||14", "x y", None]
    frame = pl.DataFrame(
        {"word": words, "packed": counts, "number": counts, "tags": tags, "hashed": words},
        schema_overrides={"packed": pl.Int64, "number": pl.Int64},
    )
    frame.write_csv(tmp_path / "rows.csv")
    frame.write_parquet(tmp_path / "rows.parquet")
    frame.with_columns(pl.col("tags").str.split("|")).write_parquet(tmp_path / "lists.parquet")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in frame.rows(named=True)))

    def encoded(read: pl.DataFrame) -> list[list[int]]:
        columns = {name: column.to_list() for name, column in read.to_dict().items()}
        by_rows = ENCODER.encode_rows("candidate", read.rows(named=True))
        assert (ENCODER.encode_columns("candidate", columns, len(read)) == by_rows).all()
        return by_rows.tolist()

    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    read = {
        # text formats are read as text, never inferred
        "csv": encoded(pl.read_csv(tmp_path / "rows.csv", infer_schema=False)),
        "parquet": encoded(pl.read_parquet(tmp_path / "rows.parquet")),
        "parquet of lists": encoded(pl.read_parquet(tmp_path / "lists.parquet")),
        "json": ENCODER.encode_rows("candidate", [json.loads(line) for line in lines]).tolist(),
        "msgspec": ENCODER.encode_rows("candidate", [msgspec.json.decode(line) for line in lines]).tolist(),
    }
    expected = [[i for name in NAMES for i in expected_ids(name, row.get(name))] for row in frame.rows(named=True)]
    assert read == dict.fromkeys(read, expected)


def test_leading_zeros_count_and_an_integer_is_its_decimal_text(tmp_path: Path) -> None:
    pl.DataFrame({"word": ["007", "14", "7"]}).write_csv(tmp_path / "text.csv")
    pl.DataFrame({"word": [14]}).write_parquet(tmp_path / "integers.parquet")
    seven, fourteen, plain_seven = ENCODER.encode_values(
        "word", pl.read_csv(tmp_path / "text.csv", infer_schema=False)["word"].to_list()
    ).ravel()
    assert seven != plain_seven
    same = [14, "14", json.loads("14"), json.loads('"14"'), *pl.read_parquet(tmp_path / "integers.parquet")["word"]]
    assert ENCODER.encode_values("word", same).ravel().tolist() == [fourteen] * 5


@pytest.mark.parametrize("name", ["word", "packed", "hashed", "tags"])
def test_a_float_in_a_categorical_field_is_refused_from_every_format(name: str, tmp_path: Path) -> None:
    pl.DataFrame({name: [14.0]}).write_parquet(tmp_path / "floats.parquet")
    for raw in (14.0, json.loads("14.0"), json.loads("1.4e1"), pl.read_parquet(tmp_path / "floats.parquet")[name][0]):
        with pytest.raises(FieldValueError, match=rf"^candidates\[0\]\.{name}: .* got the float 14\.0$"):
            ENCODER.encode_rows("candidate", [{name: raw}])


def test_integers_around_every_power_of_two_fall_in_the_bucket_of_their_own_float64() -> None:
    values = [sign * (2**power + near) for power in range(70) for near in (-1, 0, 1) for sign in (-1, 1)]
    field = NumericField("n", "context", tuple(sorted({float(value) for value in values})))
    encoder = FeatureEncoder([field], {"n": Vocabulary([str(bucket) for bucket in range(len(field.edges) + 1)])})
    ids = encoder.encode_values("n", values).ravel().tolist()
    assert ids == encoder.encode_values("n", [str(value) for value in values]).ravel().tolist()
    assert [field.edges[found - 3] for found in ids] == [float(value) for value in values]
    ordered = [found for _, found in sorted(zip(values, ids, strict=True))]
    assert all(low <= high for low, high in pairwise(ordered))
