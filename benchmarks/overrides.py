"""Settings instead of defaults, as the benches' command lines give them: `--set SECTION.KEY=JSON`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence


SECTIONS: Final = ("afe", "dtf", "train", "calibration")
"""Of an experiment, those that have defaults."""


class OverrideError(ValueError):
    """An item that is no setting; says which, and what was expected."""


def overrides(items: Sequence[str], sections: Sequence[str] = SECTIONS) -> dict[str, Any]:
    """Return "section.key" -> value.

    Args:
        items: As they were given.
        sections: Whose settings there may be.

    Raises:
        OverrideError: An item that is none.
    """
    found = {}
    for item in items:
        key, equals, value = item.partition("=")
        section, dot, name = key.partition(".")
        expected = f'--set: expected SECTION.KEY=JSON, as in train.rate=0.001 or dtf.widths=[64,64]; got "{item}"'
        if not (equals and dot and name and section in sections):
            raise OverrideError(expected)
        try:
            found[key] = json.loads(value)
        except json.JSONDecodeError:
            raise OverrideError(expected) from None
    return found
