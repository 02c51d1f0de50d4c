"""`benchmarks/reliability.json`: one figure a key, each command writing its own and leaving the others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from service.features.files import replaced_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["add_figures"]


def add_figures(path: Path, figures: Mapping[str, float]) -> None:
    """Set figures in a file of them, which need not exist yet.

    Args:
        path: The file.
        figures: By key, such as `fuzz_inputs`.
    """
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    with replaced_file(path) as staged:
        staged.write_text(json.dumps({**known, **figures}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
