"""Arrays of a multi-valued field too long to be looked at element by element: they mean what short ones mean."""

from __future__ import annotations

import random
import re

import pytest

from service.features import FieldValueError, MultiValuedField

TAGS = MultiValuedField("tags", "candidate", 3)
KINDS = ["", "a", "b|c", "é", "7", 7, 0, -1, 10**640 - 1]


@pytest.mark.parametrize("seed", range(8))
def test_a_long_array_has_the_tokens_of_its_elements_one_by_one(seed: int) -> None:
    draw = random.Random(seed)
    raw = draw.choices(draw.sample(KINDS, k=draw.randint(1, len(KINDS))), k=3000)
    expected = [token for element in raw for token in TAGS.tokens([element])]
    assert list(TAGS.tokens(raw)) == expected
    assert list(TAGS.tokens(raw, 5)) == expected[:5]


@pytest.mark.parametrize("wrong", [None, True, 1.0, "\ud800", 10**640, -(10**640), ["a"]], ids=list("nbfsild"))
@pytest.mark.parametrize("others", ["a", "", 7])
def test_a_wrong_element_is_named_by_its_place(wrong: object, others: object) -> None:
    for most in (None, 1):  # all are looked at, however few are taken
        with pytest.raises(FieldValueError, match=re.escape("tags[2999]")):
            TAGS.tokens([others] * 2999 + [wrong, others], most)


def test_halves_of_a_surrogate_pair_are_none_where_they_stand_apart() -> None:
    with pytest.raises(FieldValueError, match=re.escape("tags[0]")):
        TAGS.tokens(["\ud83d", "\ude00"] * 2000)
