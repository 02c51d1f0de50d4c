"""A field that nearly is the label: named, with its share of the label's entropy."""

from __future__ import annotations

import pytest
from scipy.stats import entropy

from training.field_selection.measures import FieldMeasure, Measures
from training.loop import too_telling


def field(name: str, bits: float) -> FieldMeasure:
    return FieldMeasure(
        name,
        "context",
        rows=9,
        seen=9,
        entropy_bits=3.0,
        plug_in_bits=bits,
        noise_bits=0.0,
        information_bits=bits,
        spread_bits=0.0,
        p_value=0.0,
        clustered=False,
    )


def measured(rate: float, *fields: FieldMeasure) -> Measures:
    none = tuple((0.0,) * len(fields) for _ in fields)
    names = tuple(one.name for one in fields)
    return Measures(100, 100, rate, fields, none, none, none, none, (), names, (0.0,) * len(fields))


@pytest.mark.parametrize("rate", [0.5, 0.15, 0.001])
def test_only_a_field_that_nearly_is_the_label_is_named(rate: float) -> None:
    whole = float(entropy([rate, 1 - rate], base=2))
    fields = [field("leak", 0.97 * whole), field("good", 0.94 * whole), field("noise", -0.01)]
    (told,) = too_telling(measured(rate, *fields))
    assert told.startswith("field 'leak' alone says 97% of what there is to know of the label")


def test_labels_of_one_class_name_nothing() -> None:
    assert too_telling(measured(0.0, field("any", 0.0))) == []
