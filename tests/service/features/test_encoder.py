"""FeatureEncoder: layout, errors with their exact place, the serving form, and the encoder on disk."""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fields_of_all_kinds import FIELDS, VOCABULARIES

from service.features import (
    CategoricalField,
    FeatureEncoder,
    FeatureError,
    FieldValueError,
    HashedVocabulary,
    MisplacedFieldError,
    NumericField,
    RaggedColumnsError,
    SchemaError,
    StructureError,
    UnknownFieldError,
    Vocabulary,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def encoder() -> FeatureEncoder:
    return FeatureEncoder(FIELDS, VOCABULARIES)


@pytest.fixture
def serving(encoder: FeatureEncoder) -> FeatureEncoder:
    return encoder.for_serving({"hour", "price"})


class TestLayout:
    def test_columns_of_a_side_follow_the_fields_in_order(self, encoder: FeatureEncoder) -> None:
        assert [(c.name, c.first, c.width) for c in encoder.columns("context")] == [("user", 0, 1), ("hour", 1, 1)]
        assert [(c.name, c.first, c.width) for c in encoder.columns("candidate")] == [
            ("tags", 0, 3),
            ("ad", 3, 1),
            ("price", 4, 1),
            ("position", 5, 1),
            ("genres", 6, 2),
        ]
        assert (encoder.width("context"), encoder.width("candidate")) == (2, 8)
        assert encoder.field("ad") is FIELDS[3]
        assert encoder.vocabulary("ad") is VOCABULARIES["ad"]

    def test_ids_stand_where_the_layout_says(self, encoder: FeatureEncoder) -> None:
        rows = [
            {"tags": "y|unseen|x|y", "ad": "a2", "position": 2, "genres": ["x", "zzz"]},
            {"tags": ["x"], "ad": 5, "price": None},
            {},
        ]
        price = VOCABULARIES["price"].id("1")
        found = encoder.encode_rows("candidate", [*rows, {"price": "1.5"}])
        assert found.dtype == np.int32
        assert found.flags["C_CONTIGUOUS"]
        assert found.tolist() == [
            [4, 1, 3, 3, 0, 3, 3, 1],
            [3, 2, 2, 1, 0, 0, 0, 2],
            [0, 2, 2, 0, 0, 0, 0, 2],
            [0, 2, 2, 0, price, 0, 0, 2],
        ]
        assert encoder.encode_rows("context", [{"user": 7, "hour": 12}]).tolist() == [[3, 4]]

    def test_no_rows_make_an_empty_matrix_of_the_right_width(self, encoder: FeatureEncoder) -> None:
        assert encoder.encode_rows("candidate", []).shape == (0, 8)
        assert encoder.encode_columns("candidate", {"ad": [], "price": []}, 0).shape == (0, 8)
        assert encoder.encode_values("tags", []).shape == (0, 3)

    def test_a_side_without_fields_has_no_columns(self) -> None:
        alone = FeatureEncoder([FIELDS[0]], {"user": VOCABULARIES["user"]})
        assert alone.encode_rows("candidate", [{}, {}]).shape == (2, 0)
        assert alone.encode_columns("candidate", {}, 3).shape == (3, 0)

    def test_values_past_max_values_are_cut_off_and_counted(self, encoder: FeatureEncoder) -> None:
        values = ["x|y|x", "x|y|x|y", ["x"] * 4, None, "||x|||y||x|"]
        assert encoder.truncated("tags", values).tolist() == [False, True, True, False, False]
        assert encoder.truncated("user", ["a", 1]).tolist() == [False, False]
        assert encoder.encode_values("tags", values).tolist()[1] == [3, 4, 3]

    @pytest.mark.parametrize(
        ("fields", "vocabularies", "message"),
        [
            ([FIELDS[0], FIELDS[0]], {"user": VOCABULARIES["user"]}, "expected distinct names, got 'user' twice"),
            ([FIELDS[0]], {}, r"expected one for each encoded field, got a difference in \['user'\]"),
            (
                [FIELDS[0]],
                {"user": VOCABULARIES["user"], "ad": VOCABULARIES["ad"]},
                r"expected one for each encoded field, got a difference in \['ad'\]",
            ),
            ([FIELDS[0]], {"user": VOCABULARIES["tags"]}, "'user': expected a vocabulary that reserves 2 ids, got 3"),
            ([FIELDS[1]], {"tags": HashedVocabulary(9)}, "'tags': expected a vocabulary that reserves 3 ids, got 2"),
        ],
    )
    def test_fields_and_vocabularies_must_match(self, fields: Any, vocabularies: Any, message: str) -> None:
        with pytest.raises(SchemaError, match=message):
            FeatureEncoder(fields, vocabularies)


GOOD: dict[str, Any] = {"ad": "a1", "price": 1, "tags": ["x"]}


def with_fault(field: str, raw: object, at: int, rows: int) -> tuple[list[dict[str, Any]], dict[str, list[Any]]]:
    """Rows that are good but for one value, and the same as columns."""
    listed = [dict(GOOD) for _ in range(rows)]
    listed[at][field] = raw
    return listed, {name: [row.get(name) for row in listed] for name in {*GOOD, field}}


class TestPlaces:
    @pytest.mark.parametrize(
        ("field", "raw", "element", "rest"),
        [
            ("ad", 1.5, "", "expected text or an integer, got the float 1.5"),
            ("ad", ["a"], "", "expected text or an integer, got an array of 1 elements"),
            ("ad", {}, "", "expected text or an integer, got an object"),
            ("ad", "\ud800", "", "expected text without lone surrogates, got the text '\\ud800'"),
            ("ad", True, "", "expected text or an integer, got the boolean true"),
            ("price", "1,5", "", "expected a number or numeric text, got the text '1,5'"),
            ("price", True, "", "expected a number or numeric text, got the boolean true"),
            ("price", float("nan"), "", "expected a finite number in the float64 range, got the float nan"),
            ("price", [1], "", "expected a number or numeric text, got an array of 1 elements"),
            ("price", "1e999", "", "expected a finite number in the float64 range, got the text '1e999'"),
            ("price", 10**400, "", "expected a finite number in the float64 range, got an integer of 1329 bits"),
            ("tags", ["x", 1.0], "[1]", "expected text or an integer, got the float 1.0"),
            ("tags", 2.5, "", "expected text, or an array of text and integers, got the float 2.5"),
        ],
    )
    def test_a_refused_value_is_located_in_every_form(
        self, encoder: FeatureEncoder, field: str, raw: object, element: str, rest: str
    ) -> None:
        for rows in (1, 2, 7):
            at = rows - 1
            listed, columns = with_fault(field, raw, at, rows)
            calls: list[tuple[Callable[[], object], str]] = [
                (partial(encoder.encode_rows, "candidate", listed), f"candidates[{at}].{field}{element}"),
                (partial(encoder.encode_columns, "candidate", columns, rows), f"candidates.{field}[{at}]{element}"),
                (partial(encoder.encode_values, field, columns[field]), f"{field}[{at}]{element}"),
                (partial(encoder.encode_rows, "candidate", listed, root="rows"), f"rows[{at}].{field}{element}"),
            ]
            for call, where in calls:
                with pytest.raises(FieldValueError) as caught:
                    call()
                assert caught.value.where == where
                assert str(caught.value) == f"{where}: {rest}"

    def test_the_first_fault_is_named_where_there_are_several(self, encoder: FeatureEncoder) -> None:
        with pytest.raises(FieldValueError, match=r"^candidates\[1\]\.ad: "):
            encoder.encode_rows("candidate", [{"ad": "a"}, {"ad": 1.5}, {"ad": 2.5}])

    def test_one_row_of_the_context_needs_no_index(self, encoder: FeatureEncoder) -> None:
        with pytest.raises(FieldValueError, match=r"^context\.hour: "):
            encoder.encode_rows("context", [{"hour": "noon"}])
        with pytest.raises(FieldValueError, match=r"^context\[1\]\.hour: "):
            encoder.encode_rows("context", [{}, {"hour": "noon"}])

    @pytest.mark.parametrize(
        ("rows", "error", "message"),
        [
            ([{}, 3], StructureError, "candidates[1]: expected an object, got the integer 3"),
            ([{}, ["ad"]], StructureError, "candidates[1]: expected an object, got an array of 1 elements"),
            (
                [{"ad": "a"}, {"adv": "a"}],
                UnknownFieldError,
                "candidates[1].adv: expected a field of the schema, the nearest is the text 'ad', got an unknown field",
            ),
            (
                [{"ad": "a"}, {"ad": "b", "x": 1}],
                UnknownFieldError,
                "candidates[1].x: expected one of tags, ad, price, position, genres, got an unknown field",
            ),
            (
                [{3: "a"}],
                UnknownFieldError,
                "candidates[0]: expected names that are text, got the integer 3",
            ),
            (
                [{"user": "u1"}],
                MisplacedFieldError,
                "candidates[0].user: expected a field of the candidate side, got one of the context side",
            ),
        ],
    )
    def test_a_wrong_row_is_located(
        self, encoder: FeatureEncoder, rows: Any, error: type[FeatureError], message: str
    ) -> None:
        with pytest.raises(error) as caught:
            encoder.encode_rows("candidate", rows)
        assert str(caught.value) == message

    @pytest.mark.parametrize(
        ("columns", "error", "message"),
        [
            ([], StructureError, "candidates: expected an object of arrays, got an array of 0 elements"),
            ({"ad": "ab"}, StructureError, "candidates.ad: expected an array, got the text 'ab'"),
            ({"ad": b"ab"}, StructureError, "candidates.ad: expected an array, got a value of type bytes"),
            ({"ad": None}, StructureError, "candidates.ad: expected an array, got null"),
            ({"ad": {"a": 1, "b": 2}}, StructureError, "candidates.ad: expected an array, got an object"),
            ({"ad": ["a"]}, RaggedColumnsError, "candidates.ad: expected 2 values, got 1"),
            ({"ad": ["a", "b"], "price": [1] * 3}, RaggedColumnsError, "candidates.price: expected 2 values, got 3"),
            (
                {"adv": ["a", "b"]},
                UnknownFieldError,
                "candidates.adv: expected a field of the schema, the nearest is the text 'ad', got an unknown field",
            ),
            (
                {"user": ["a", "b"]},
                MisplacedFieldError,
                "candidates.user: expected a field of the candidate side, got one of the context side",
            ),
        ],
    )
    def test_a_wrong_column_is_located(
        self, encoder: FeatureEncoder, columns: Any, error: type[FeatureError], message: str
    ) -> None:
        with pytest.raises(error) as caught:
            encoder.encode_columns("candidate", columns, 2)
        assert str(caught.value) == message

    def test_a_long_or_odd_name_and_a_wide_schema_make_no_long_message(self) -> None:
        fields = [CategoricalField(f"field_{number}", "candidate") for number in range(100)]
        encoder = FeatureEncoder(fields, {field.name: Vocabulary(["a"]) for field in fields})
        for name in ("n" * 50_000, "a\nb", "\0"):
            with pytest.raises(
                UnknownFieldError, match=r"field_7, ... \(100 in all\), got an unknown field$"
            ) as caught:
                encoder.encode_rows("candidate", [{name: 1}])
            assert caught.value.where.startswith(f"candidates[0][{name[:60]!r}")
            assert len(str(caught.value)) < 300

    def test_an_unknown_name_is_found_even_where_rows_have_equally_many(self, encoder: FeatureEncoder) -> None:
        rows = [{"ad": "a", "user": "u"}, {"ad": "a", "usr": "u"}]
        assert encoder.encode_rows("candidate", rows[:1], shared=True).shape == (1, 8)
        with pytest.raises(UnknownFieldError, match=r"candidates\[1\]"):
            encoder.encode_rows("context", rows, root="candidates", shared=True)

    def test_asking_for_a_field_that_is_not_there_is_refused(self, serving: FeatureEncoder) -> None:
        with pytest.raises(UnknownFieldError, match="field: expected a name of the schema, got the text 'x'"):
            serving.field("x")
        with pytest.raises(UnknownFieldError, match="expected the name of an encoded field, got the text 'hour'"):
            serving.vocabulary("hour")


def test_numeric_text_is_remembered_only_up_to_a_bound() -> None:
    field = NumericField("n", "context", (0.0, 1e6))
    encoder = FeatureEncoder([field], {"n": Vocabulary(["0", "1", "2"])})
    remembered = encoder._codecs["n"]._texts.one.__self__  # type: ignore[union-attr,attr-defined]
    assert encoder.encode_values("n", [str(number) for number in range(20_000)]).tolist() == [[3]] * 20_000
    assert encoder.encode_values("n", ["0" * 1000 + "5"]).tolist() == [[3]]
    assert len(remembered) <= 4096
    assert max(len(text) for text in remembered if text is not None) <= 24


class TestServing:
    def test_only_used_fields_have_columns(self, serving: FeatureEncoder) -> None:
        assert [field.name for field in serving.fields] == ["user", "tags", "ad"]
        assert (serving.width("context"), serving.width("candidate")) == (1, 4)

    def test_a_dropped_field_is_accepted_and_ignored_whatever_it_holds(self, serving: FeatureEncoder) -> None:
        bare = serving.encode_rows("candidate", [{"ad": "a1"}, {"ad": "a2"}])
        assert (serving.encode_rows("candidate", [{"ad": "a1", "price": {}}, {"ad": "a2"}]) == bare).all()
        assert (serving.encode_columns("candidate", {"ad": ["a1", "a2"], "price": [1.5, []]}, 2) == bare).all()
        assert serving.encode_rows("context", [{"hour": "noon"}]).tolist() == [[0]]

    def test_a_dropped_field_still_has_a_side(self, serving: FeatureEncoder) -> None:
        with pytest.raises(MisplacedFieldError, match=r"candidates\[0\]\.hour"):
            serving.encode_rows("candidate", [{"hour": 1}])

    @pytest.mark.parametrize("dropped", [(), ("position",)])
    def test_a_training_only_field_is_refused_by_name(self, encoder: FeatureEncoder, dropped: tuple[str, ...]) -> None:
        serving = encoder.for_serving(dropped)
        message = "expected nothing: the field exists in training only, got a value"
        with pytest.raises(UnknownFieldError, match=rf"candidates\[1\]\.position: {message}"):
            serving.encode_rows("candidate", [{}, {"position": 1}])
        with pytest.raises(UnknownFieldError, match=rf"candidates\.genres: {message}"):
            serving.encode_columns("candidate", {"genres": ["x"]}, 1)

    def test_dropping_what_is_no_field_is_refused(self, encoder: FeatureEncoder) -> None:
        with pytest.raises(UnknownFieldError, match="got the text 'nothing'"):
            encoder.for_serving({"nothing"})

    def test_the_serving_form_of_a_serving_form_keeps_what_was_dropped(self, serving: FeatureEncoder) -> None:
        again = serving.for_serving({"ad"})
        assert [field.name for field in again.ignored] == ["hour", "price", "ad"]
        assert [field.name for field in again.refused] == ["position", "genres"]


@pytest.mark.parametrize("name", ["user", "tags", "hour", "price"])
def test_the_codec_of_a_field_gives_the_ids_that_the_encoder_gives(name: str) -> None:
    encoder, values = FeatureEncoder(FIELDS, VOCABULARIES), ["7", None, "", "3"]
    ids = np.frombuffer(encoder.codec(name).column(values), np.int32).reshape(-1, len(values)).T
    assert np.array_equal(ids, encoder.encode_values(name, values))
    with pytest.raises(UnknownFieldError, match="nothing"):
        encoder.codec("nothing")
