"""Token to id, in a dictionary and in packed arrays, and the file that holds them."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from service.features import HashedVocabulary, SchemaError, Vocabulary, vocabulary
from service.features.packed import PackedTokens
from service.features.vocabulary_file import pack, unpack

ROOT = Path(__file__).resolve().parents[3]

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
counts_of_texts = st.dictionaries(texts, st.integers(1, 5), max_size=40)
both_forms = pytest.mark.parametrize("packed", [False, True], ids=["dictionary", "packed"])


@both_forms
class TestFitting:
    def test_ids_go_by_falling_count_and_then_by_token(self, packed: bool) -> None:
        fitted = Vocabulary.fit({"b": 2, "a": 2, "rare": 1, "top": 9, "é": 2, "Z": 2}, 2, packed=packed)
        assert fitted.tokens() == ["top", "Z", "a", "b", "é"]
        assert [fitted.id(token) for token in ("top", "Z", "a", "b", "é")] == [2, 3, 4, 5, 6]
        assert fitted.id("rare") == fitted.id("unseen") == 1
        assert len(fitted) == 7

    def test_a_multi_valued_field_reserves_a_third_id(self, packed: bool) -> None:
        fitted = Vocabulary.fit({"a": 1}, reserved=3, packed=packed)
        assert (fitted.id("a"), fitted.id("b"), len(fitted)) == (3, 1, 4)

    def test_nothing_makes_a_vocabulary_of_reserved_ids(self, packed: bool) -> None:
        fitted = Vocabulary.fit({}, packed=packed)
        assert (len(fitted), fitted.tokens(), fitted.id("a"), fitted.id("")) == (2, [], 1, 1)

    def test_extending_keeps_every_old_id_and_appends_new_tokens_in_order(self, packed: bool) -> None:
        old = Vocabulary.fit({"a": 3, "b": 2}, packed=packed)
        new = old.extended({"b": 100, "y": 2, "x": 2, "z": 3, "rare": 1}, min_count=2)
        assert new.tokens() == ["a", "b", "z", "x", "y"]
        assert old.tokens() == ["a", "b"]

    @pytest.mark.parametrize("token", ["", "\ud800", "a\udfff", 7, None, b"a"])
    def test_a_token_that_is_no_text_is_refused(self, packed: bool, token: object) -> None:
        with pytest.raises(SchemaError, match="vocabulary: expected non-empty UTF-8 tokens, got "):
            Vocabulary(["a", token], packed=packed)  # type: ignore[list-item]

    def test_a_repeated_token_is_refused(self, packed: bool) -> None:
        with pytest.raises(SchemaError, match="vocabulary: expected distinct tokens, got the text 'b' twice"):
            Vocabulary(["a", "b", "c", "b"], packed=packed)

    def test_min_count_is_at_least_one(self, packed: bool) -> None:
        with pytest.raises(SchemaError, match="min_count: expected at least 1, got 0"):
            Vocabulary.fit({"a": 1}, 0, packed=packed)

    @given(counts=counts_of_texts, asked=st.lists(texts, max_size=10), reserved=st.sampled_from([2, 3]))
    def test_ids_are_those_of_a_plain_sort(
        self, packed: bool, counts: dict[str, int], asked: list[str], reserved: int
    ) -> None:
        fitted = Vocabulary.fit(counts, 2, reserved, packed=packed)
        order = sorted((t for t in counts if counts[t] >= 2), key=lambda t: (-counts[t], t.encode("utf-8")))
        expected = {token: position for position, token in enumerate(order, reserved)}
        questions = [*counts, *asked, *(token + "\0" for token in counts), *(token[:-1] + "x" for token in counts)]
        assert fitted.ids(questions).tolist() == [expected.get(token, 1) for token in questions]
        assert fitted.ids(questions).dtype == np.int32
        assert fitted.tokens() == order


class TestForms:
    def test_the_form_is_chosen_by_size_and_kept_by_the_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(vocabulary, "LARGEST_TABLE", 3)
        small, large = Vocabulary(["a", "b", "c"]), Vocabulary(["a", "b", "c", "d"])
        assert (small.packed, large.packed) == (False, True)
        assert Vocabulary(unpack(pack(large.content()), "large")).packed
        assert not Vocabulary(unpack(pack(small.content()), "small")).packed

    def test_many_tokens_are_all_found_at_their_place(self) -> None:
        tokens = [f"{number * 2654435761 % 2**32:x}\0{number % 7}" for number in range(70_000)]
        packed = Vocabulary(tokens, packed=True)
        assert packed.ids(tokens).tolist() == list(range(2, 70_002))
        assert packed.tokens() == tokens
        assert (packed.ids([f"{token}\0" for token in tokens[:1000]]) == 1).all()

    @given(tokens=st.lists(texts, unique=True, max_size=40))
    def test_a_file_gives_the_tokens_back(self, tokens: list[str]) -> None:
        for index in (True, False):
            content = pack(PackedTokens.build(tokens, index=index))
            assert list(unpack(content, "file")) == tokens
            assert load(content)["offsets"].tolist() == [0, *np.cumsum([len(t.encode()) for t in tokens]).tolist()]

    @given(
        tokens=st.lists(texts, unique=True, max_size=40),
        asked=st.lists(texts | st.sampled_from([None, "", "a\0", "\U0001f600"]), max_size=60),
    )
    def test_many_values_get_the_ids_that_each_gets_alone_and_that_a_dictionary_gives(
        self, tokens: list[str], asked: list[str | None]
    ) -> None:
        packed, table = (Vocabulary(tokens, packed=packed).lookup for packed in (True, False))
        raws = [*asked, *tokens]
        assert packed.many(raws) == b"".join(packed.one(raw) for raw in raws) == table.many(raws)

    @pytest.mark.parametrize("raw", [7, 1.5, True, 0, b"a", "\ud800", float("nan")])
    def test_among_many_values_one_that_is_no_text_is_refused_as_it_is_alone(self, raw: object) -> None:
        lookup = Vocabulary(["a", "b"], packed=True).lookup
        for raws in ([raw], ["a", None, raw, "b"]):
            with pytest.raises(KeyError):
                lookup.many(raws)

    def test_text_of_a_class_of_its_own_is_found_as_text(self) -> None:
        class Word(str):
            __slots__ = ()

        lookup = Vocabulary(["a", "b"], packed=True).lookup
        assert lookup.many([Word("b"), Word("c"), Word("")]) == lookup.many(["b", "c", ""])

    def test_tokens_without_an_index_cannot_be_searched(self) -> None:
        with pytest.raises(SchemaError, match="expected tokens with an index"):
            PackedTokens.build(["a"], index=False).finder()


class TestHashed:
    def test_an_id_is_the_xxhash64_of_the_token_modulo_the_buckets(self) -> None:
        hashed = HashedVocabulary(1000, reserved=3)
        for token in ("a", "é\0", "long " * 50):
            assert hashed.id(token) == 3 + xxhash.xxh64(token.encode(), seed=0).intdigest() % 1000
        assert len(hashed) == 1003
        assert hashed.extended({"new": 5}) is hashed

    @pytest.mark.parametrize("buckets", [0, -1, 2**31])
    def test_the_number_of_buckets_must_fit(self, buckets: int) -> None:
        with pytest.raises(SchemaError, match="buckets: expected an integer from 1 to"):
            HashedVocabulary(buckets)

    def test_buckets_are_about_equally_full(self) -> None:
        hashed = HashedVocabulary(10)
        sizes = Counter(hashed.ids([str(number) for number in range(10_000)]).tolist())
        assert min(sizes) == 2
        assert max(sizes.values()) < 1.15 * min(sizes.values())


FITTING = """
import sys, hashlib
from service.features import CategoricalField, FeatureEncoder, Vocabulary
counts = {token: 1 + len(token) for token in {f"t{number}" for number in range(500)} | set("éab")}
fields = [CategoricalField("small", "context"), CategoricalField("large", "candidate")]
print(FeatureEncoder(fields, {
    "small": Vocabulary.fit(counts, packed=False), "large": Vocabulary.fit(counts, packed=True)
}).digest)
"""


def test_files_are_the_same_under_every_hash_seed() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", FITTING],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(digests) == 1


def tensors(**changes: np.ndarray) -> bytes:
    plain = load(pack(PackedTokens.build(["ab", "é", "c"], index=True)))
    return save({name: array for name, array in {**plain, **changes}.items() if array is not None})


def header(document: object, data: bytes = b"") -> bytes:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str, shape: list[int], first: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, end]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a safetensors file, got 0 bytes"),
        (b"\xff" * 20, "expected a safetensors file, got 20 bytes"),
        (header(b"nonsense"), "expected a safetensors header"),
        (header(b"\xff\xfe"), "expected a safetensors header"),
        pytest.param(header(b"[" * 100_000), "expected a safetensors header", id="nested"),
        (header({"offsets": 3}), "expected a safetensors header"),
        (header({"offsets": entry("I64", [1], 0, 8)}, bytes(8)), "expected the tensors offsets, tokens and perhaps"),
        (save({"offsets": np.zeros(1, np.int64), "x": np.zeros(1, np.uint8)}), "expected the tensors offsets, tokens"),
        (tensors(offsets=np.array([0, 2, 4, 5], np.int32)), "offsets: expected I64 of one axis"),
        (tensors(offsets=np.array([[0, 2], [4, 5]], np.int64)), "offsets: expected I64 of one axis"),
        (tensors(tokens=np.frombuffer(b"abc\xc3\xa9", np.int8)), "tokens: expected U8 of one axis"),
        (tensors(slots=np.zeros(8, np.int64)), "slots: expected I32 of one axis"),
        (tensors(offsets=np.zeros(0, np.int64)), "expected offsets rising from 0 to 5"),
        (tensors(offsets=np.array([0, 2, 4], np.int64)), "expected offsets rising from 0 to 5"),
        (tensors(offsets=np.array([1, 2, 4, 5], np.int64)), "expected offsets rising from 0 to 5"),
        (tensors(offsets=np.array([0, 2, 2, 5], np.int64)), "expected offsets rising from 0 to 5"),
        (tensors(offsets=np.array([0, 4, 2, 5], np.int64)), "expected offsets rising from 0 to 5"),
        (tensors(offsets=np.array([0, 2, 4, 9], np.int64)), "expected offsets rising from 0 to 5"),
        (tensors(offsets=np.array([0, 2, 3, 5], np.int64)), "expected UTF-8 tokens, got a cut inside a character"),
        (tensors(tokens=np.frombuffer(b"ab\xff\xfec", np.uint8)), "expected UTF-8 tokens, got "),
        (tensors(tokens=np.frombuffer(b"ab\xc3c\xc3", np.uint8)), "expected UTF-8 tokens, got "),
        (tensors(slots=np.zeros(8, np.int32)), "expected a slot for each of 3 tokens"),
        (tensors(slots=np.array([1, 1, 1, 0, 0, 0, 0, 0], np.int32)), "expected a slot for each of 3 tokens"),
        (tensors(slots=np.array([1, 2, 4, 0, 0, 0, 0, 0], np.int32)), "expected a slot for each of 3 tokens"),
        (tensors(slots=np.array([1, 2, -3, 0, 0, 0, 0, 0], np.int32)), "expected a slot for each of 3 tokens"),
        (tensors(slots=np.array([1, 2, 3, 1, 2, 3, 1, 2], np.int32)), "expected a slot for each of 3 tokens"),
        (tensors(slots=np.array([1, 2, 3], np.int32)), "expected 8 slots, got 3"),
        (
            header(
                {"offsets": entry("I64", [1], 0, 8), "tokens": entry("U8", [0], 8, 8)},
                bytes(9),
            ),
            "expected tensors that fill the file, got 9 bytes of data",
        ),
        (
            header({"offsets": entry("I64", [2], 0, 8), "tokens": entry("U8", [0], 8, 8)}, bytes(8)),
            "offsets: expected 16 bytes, got 8",
        ),
        (
            header({"offsets": entry("I64", [2], 0, 16), "tokens": entry("U8", [0], 8, 8)}, bytes(8)),
            "offsets: expected I64 of one axis within the file",
        ),
        (
            header({"offsets": entry("I64", [1], -8, 0), "tokens": entry("U8", [0], 8, 8)}, bytes(8)),
            "offsets: expected I64 of one axis within the file",
        ),
    ],
)
def test_a_file_that_holds_anything_else_is_refused_before_any_look_up(content: bytes, message: str) -> None:
    with pytest.raises(SchemaError, match=f"^vocabulary.safetensors[,:] {message}"):
        unpack(content, "vocabulary.safetensors")


def test_a_hash_table_that_leads_elsewhere_is_refused() -> None:
    slots = load(tensors())["slots"]
    with pytest.raises(SchemaError, match="expected a slot that leads to the text "):
        unpack(tensors(slots=np.roll(slots, 3)), "vocabulary.safetensors")
