"""Raw value to token, per kind of field, and the edges of numeric fields."""

import math
import re
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.features import (
    CategoricalField,
    FieldValueError,
    MultiValuedField,
    NumericField,
    SchemaError,
    log_squared_edges,
    quantile_edges,
)
from service.features.fields import NUMBER_PATTERN

USER = CategoricalField("user", "context")
PRICE = NumericField("price", "candidate", (-1.0, 0.0, 2.5, 1e300))
TAGS = MultiValuedField("tags", "candidate", 3)


class Colour(str, Enum):  # noqa: UP042 - the older form, whose str() is its name
    RED = "red"


class TestCategorical:
    @pytest.mark.parametrize(
        ("raw", "token"),
        [
            ("007", "007"),
            ("7", "7"),
            (7, "7"),
            (-7, "-7"),
            (0, "0"),
            (" 7", " 7"),
            ("a\nb\0c", "a\nb\0c"),
            ("\U0001d4b3é", "\U0001d4b3é"),
            (10**30, "1" + "0" * 30),
            (Colour.RED, "red"),
        ],
    )
    def test_text_is_taken_as_it_is_and_an_integer_as_decimal_text(self, raw: object, token: str) -> None:
        assert USER.token(raw) == token
        assert type(USER.token(raw)) is str
        assert USER.tokens(raw) == (token,)

    @pytest.mark.parametrize("raw", [None, ""])
    def test_null_and_empty_text_are_missing(self, raw: object) -> None:
        assert USER.token(raw) is None
        assert USER.tokens(raw) == ()

    @pytest.mark.parametrize(
        ("raw", "got"),
        [
            (1.0, "the float 1.0"),
            (math.nan, "the float nan"),
            (True, "the boolean true"),
            (np.float64(2), "the float 2.0"),
            ([], "an array of 0 elements"),
            ({"a": 1}, "an object"),
            (b"a", "a value of type bytes"),
        ],
    )
    def test_anything_else_is_refused(self, raw: object, got: str) -> None:
        with pytest.raises(FieldValueError) as caught:
            USER.token(raw)
        assert str(caught.value) == f"user: expected text or an integer, got {got}"

    @pytest.mark.parametrize("raw", ["\ud800", "ok\udfffok"])
    def test_a_lone_surrogate_is_refused_with_a_message_that_can_be_printed(self, raw: str) -> None:
        with pytest.raises(FieldValueError, match="expected text without lone surrogates") as caught:
            USER.token(raw)
        str(caught.value).encode("utf-8")

    def test_an_integer_beyond_pythons_limit_for_text_is_refused_and_one_below_is_not(self) -> None:
        assert USER.token(10**639) == "1" + "0" * 639
        for raw in (10**640, -(10**640), 10**100_000):
            with pytest.raises(
                FieldValueError, match=r"an integer of at most 640 digits, got an integer of [0-9]+ bits"
            ):
                USER.token(raw)

    def test_a_long_text_is_quoted_only_in_part(self) -> None:
        with pytest.raises(FieldValueError) as caught:
            USER.token("x" * 10_000 + "\ud800")
        assert len(str(caught.value)) < 200
        assert "10001 characters" in str(caught.value)


class TestNumeric:
    @pytest.mark.parametrize(
        ("raw", "token"),
        [
            (-2, "0"),
            (-1, "1"),
            ("-1", "1"),
            (-0.5, "1"),
            (0, "2"),
            (0.0, "2"),
            (-0.0, "2"),
            ("-0", "2"),
            ("-0.0e5", "2"),
            (5e-324, "2"),
            (-5e-324, "1"),
            ("2.4999999999999996", "2"),
            (2.5, "3"),
            ("+2.5", "3"),
            (".25e1", "3"),
            ("25.E-1", "3"),
            ("1e300", "4"),
            (10**300, "4"),
            (np.float64(2.5), "3"),
        ],
    )
    def test_a_bucket_starts_at_its_edge(self, raw: object, token: str) -> None:
        assert PRICE.token(raw) == token
        assert PRICE.tokens(raw) == (token,)

    @pytest.mark.parametrize("raw", [None, ""])
    def test_null_and_empty_text_are_missing(self, raw: object) -> None:
        assert PRICE.token(raw) is None
        assert PRICE.tokens(raw) == ()

    @pytest.mark.parametrize(
        "raw",
        [True, False, [1], {}, "nan", "inf", "-Infinity", " 1", "1 ", "1_000", "0x10", "1,5", "١", "1e", ".", "+", "e5",
         "1\n", "\ud800", "--1", "1.2.3"],
    )  # fmt: skip
    def test_what_is_no_number_is_refused(self, raw: object) -> None:
        with pytest.raises(FieldValueError, match="price: expected a number or numeric text, got "):
            PRICE.token(raw)

    @pytest.mark.parametrize("raw", [math.nan, math.inf, -math.inf, "1e999", "-1e999", "9" * 400, 10**400, -(10**400)])
    def test_what_float64_cannot_hold_is_refused(self, raw: object) -> None:
        with pytest.raises(FieldValueError, match="price: expected a finite number in the float64 range, got "):
            PRICE.token(raw)

    @given(
        edges=st.lists(st.floats(allow_nan=False, allow_infinity=False), unique=True, max_size=8).map(sorted),
        value=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70),
    )
    def test_the_bucket_is_the_number_of_edges_at_or_below_the_value(self, edges: list[float], value: float) -> None:
        field = NumericField("x", "context", tuple(dict.fromkeys(edge + 0.0 for edge in edges)))
        below = sum(Decimal(edge) <= Decimal(float(value)) for edge in field.edges)
        assert field.token(value) == str(below)
        assert field.token(repr(value)) == str(below)

    @pytest.mark.parametrize("text", ["{}x", "1.{}x", "1e{}x", "{}.{}e{}", "{}e"])
    def test_the_work_for_a_text_made_to_be_slow_is_linear_in_its_length(self, text: str) -> None:
        short, long = (steps_of(NUMBER_PATTERN, text.replace("{}", "1" * digits)) for digits in (5, 50))
        assert long < 11 * short

    @pytest.mark.parametrize("raw", ["1" * 200_000 + "x", "1." + "1" * 200_000 + "x", "1e" + "1" * 200_000 + "x"])
    def test_a_long_text_that_is_almost_a_number_is_refused(self, raw: str) -> None:
        with pytest.raises(FieldValueError):
            PRICE.token(raw)


def steps_of(pattern: str, text: str) -> int:
    """Characters that a plain backtracking matcher looks at before it knows whether the whole text matches."""
    steps = 0

    def match(items: tuple[Any, ...], at: int, then: Callable[[int], bool]) -> bool:
        nonlocal steps
        if not items:
            return then(at)
        (kind, value), rest = items[0], items[1:]

        def go_on(place: int) -> bool:
            return match(rest, place, then)

        name = str(kind)
        if name == "LITERAL":
            steps += 1
            return at < len(text) and ord(text[at]) == value and go_on(at + 1)
        if name == "IN":
            steps += 1
            inside = at < len(text) and any(
                ord(text[at]) == what if str(how) == "LITERAL" else what[0] <= ord(text[at]) <= what[1]
                for how, what in value
            )
            return inside and go_on(at + 1)
        if name == "SUBPATTERN":
            return match(tuple(value[-1]), at, go_on)
        if name == "BRANCH":
            return any(match(tuple(branch), at, go_on) for branch in value[1])
        assert name == "MAX_REPEAT", name
        least, most, body = value

        def again(place: int, turns: int) -> bool:
            more = turns < most and match(tuple(body), place, lambda end: end > place and again(end, turns + 1))
            return more or (turns >= least and go_on(place))

        return again(at, 0)

    match(tuple(re._parser.parse(pattern)), 0, lambda place: place == len(text))
    return steps


class TestMultiValued:
    @pytest.mark.parametrize(
        ("raw", "tokens"),
        [
            ("a|b", ("a", "b")),
            (["a", "b"], ("a", "b")),
            (("a", "b"), ("a", "b")),
            ("a||b|", ("a", "b")),
            (["a", "", "b"], ("a", "b")),
            (["a|b"], ("a|b",)),
            ([7, "7", "007"], ("7", "7", "007")),
            (7, ("7",)),
            ("7", ("7",)),
            ("a|b|c|d|e", ("a", "b", "c", "d", "e")),
            (None, ()),
            ("", ()),
            ([], ()),
            ([""], ()),
            ("||", ()),
        ],
    )
    def test_text_is_split_and_an_array_is_taken_whole(self, raw: object, tokens: tuple[str, ...]) -> None:
        assert TAGS.tokens(raw) == tokens

    def test_the_separator_may_be_longer_than_a_character(self) -> None:
        assert MultiValuedField("tags", "candidate", 3, separator=", ").tokens("a, b,c") == ("a", "b,c")

    @pytest.mark.parametrize(
        ("raw", "message"),
        [
            (1.5, "tags: expected text, or an array of text and integers, got the float 1.5"),
            (True, "tags: expected text, or an array of text and integers, got the boolean true"),
            ({}, "tags: expected text, or an array of text and integers, got an object"),
            (["a", 1.0], "tags[1]: expected text or an integer, got the float 1.0"),
            (["a", None], "tags[1]: expected text or an integer, got null"),
            ([["a"]], "tags[0]: expected text or an integer, got an array of 1 elements"),
            (["\ud800"], "tags[0]: expected text without lone surrogates, got the text '\\ud800'"),
            ("a|\udfff", "tags: expected text without lone surrogates, got the text 'a|\\udfff'"),
        ],
    )
    def test_a_wrong_element_is_named_by_its_place(self, raw: object, message: str) -> None:
        with pytest.raises(FieldValueError) as caught:
            TAGS.tokens(raw)
        assert str(caught.value) == message


class TestDeclarations:
    @pytest.mark.parametrize(
        ("declare", "message"),
        [
            (lambda: CategoricalField("", "context"), "field name: expected non-empty UTF-8 text"),
            (lambda: CategoricalField("\ud800", "context"), "field name: expected non-empty UTF-8 text"),
            (lambda: CategoricalField("a", "item"), "field 'a', side: expected one of context, candidate"),
            (lambda: CategoricalField("a", "context", 1.5), "field 'a', serving_constant: expected text or an integer"),
            (lambda: NumericField("a", "context", (1.0, 1.0)), r"field 'a', edges\[1\]: expected more than"),
            (lambda: NumericField("a", "context", (2.0, 1.0)), r"field 'a', edges\[1\]: expected more than"),
            (lambda: NumericField("a", "context", (0.0, -0.0)), r"field 'a', edges\[1\]: expected more than"),
            (lambda: NumericField("a", "context", (math.nan,)), r"field 'a', edges\[0\]: expected a finite number"),
            (lambda: NumericField("a", "context", (1.0, math.inf)), r"field 'a', edges\[1\]: expected a finite number"),
            (lambda: NumericField("a", "context", (10**400,)), r"field 'a', edges\[0\]: expected a finite number"),
            (lambda: NumericField("a", "context", (2**53, 2**53 + 1)), r"field 'a', edges\[1\]: expected more than"),
            (lambda: NumericField("a", "context", ("1",)), r"field 'a', edges\[0\]: expected a finite number"),
            (lambda: NumericField("a", "context", (), "x"), "field 'a', serving_constant: expected a number"),
            (lambda: MultiValuedField("a", "context", 0), "field 'a', max_values: expected an integer from 1"),
            (lambda: MultiValuedField("a", "context", True), "field 'a', max_values: expected an integer from 1"),
            (lambda: MultiValuedField("a", "context", 2, "max"), "field 'a', pooling: expected sum or mean"),
            (lambda: MultiValuedField("a", "context", 2, "sum", ""), "field 'a', separator: expected non-empty text"),
        ],
    )
    def test_a_declaration_that_cannot_work_is_refused(self, declare: object, message: str) -> None:
        with pytest.raises(SchemaError, match=message):
            declare()  # type: ignore[operator]

    def test_a_serving_constant_makes_a_field_training_only_and_may_be_missing_itself(self) -> None:
        assert not USER.training_only
        assert CategoricalField("position", "candidate", "1").training_only
        assert CategoricalField("position", "candidate", "").training_only
        assert NumericField("position", "candidate", (1.0,), 0).training_only
        assert MultiValuedField("slots", "candidate", 2, serving_constant=["a", 1]).serving_constant == ("a", 1)

    def test_declarations_are_values(self) -> None:
        assert NumericField("a", "context", [1, 2]) == NumericField("a", "context", (1.0, 2.0))  # type: ignore[arg-type]
        assert len({CategoricalField("a", "context"), CategoricalField("a", "context")}) == 1


class TestEdges:
    def test_log_squared_edges_are_the_buckets_of_the_formula_for_every_count(self) -> None:
        field = NumericField("count", "candidate", log_squared_edges(200_000))
        for value in range(3, 200_000, 7):
            assert int(field.token(value) or "") == 5 + math.floor(math.log(value) ** 2)
        assert [field.token(value) for value in (-3, -2, -1, 0, 1, 2)] == ["0", "1", "2", "3", "4", "5"]
        assert field.edges[-1] <= 200_000

    def test_log_squared_edges_need_a_finite_largest_value(self) -> None:
        assert log_squared_edges(-5) == (-2.0, -1.0, 0.0, 1.0, 2.0)
        with pytest.raises(ValueError, match="largest: expected a finite number, got inf"):
            log_squared_edges(math.inf)

    @given(
        values=st.lists(st.integers(-5, 30), min_size=1, max_size=60),
        buckets=st.integers(1, 8),
    )
    def test_no_quantile_bucket_is_empty_and_counts_stand_for_repeats(self, values: list[int], buckets: int) -> None:
        edges = quantile_edges([float(value) for value in values], buckets)
        assert len(edges) <= buckets - 1
        found = {sum(edge <= value for edge in edges) for value in values}
        assert found == set(range(len(edges) + 1))
        distinct = sorted(set(values))
        counted = quantile_edges([float(value) for value in distinct], buckets, [values.count(v) for v in distinct])
        assert counted == edges

    def test_quantile_buckets_have_about_equal_weight(self) -> None:
        values = np.random.default_rng(0).normal(size=10_000)
        sizes = np.bincount(np.searchsorted(quantile_edges(values, 10), values, side="right"))
        assert sizes.size == 10
        assert abs(sizes - 1000).max() <= 2

    @pytest.mark.parametrize(
        ("values", "weights", "message"),
        [
            ([], None, "values: expected one value or more"),
            ([1.0], [1.0, 2.0], "values: expected one value or more and as many weights"),
            ([math.nan], None, "values: expected finite numbers"),
            ([1.0], [-1.0], "weights: expected finite numbers from 0 up"),
            ([1.0], [0.0], "weights: expected one above 0"),
        ],
    )
    def test_quantiles_of_nothing_are_refused(
        self, values: list[float], weights: list[float] | None, message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            quantile_edges(values, 3, weights)
        with pytest.raises(ValueError, match="buckets: expected at least 1, got 0"):
            quantile_edges([1.0], 0)
