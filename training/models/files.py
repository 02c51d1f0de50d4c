"""Model files of a run directory: `model.json` (sizes), `weights.safetensors` (fusion form), `pair.safetensors`.

Readers check names, then shapes, then values, and say which file, what was expected and what it got.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from training.models.base import FieldSlot
from training.models.reaction import FusionForm, Tower, TowerPair

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from torch import Tensor, nn

FORMAT: Final = "reaction-model"
VERSION: Final = 2
PIECE: Final = 1 << 22  # values
MOST_TOWERS: Final = 16


class ModelFormatError(ValueError):
    """A model file that cannot be read as what it claims to be."""


class ModelDocument(BaseModel):
    """`model.json`: the sizes that the weights need."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["reaction-model"] = FORMAT
    version: Literal[2] = VERSION
    slots: tuple[FieldSlot, ...]
    widths: tuple[int, ...]


def save_model(run_dir: Path, form: FusionForm) -> None:
    """Write `model.json` and `weights.safetensors` of a fusion form into a run directory."""
    document = ModelDocument(slots=form.slots, widths=form.widths)
    save_weights(run_dir / "weights.safetensors", form)
    (run_dir / "model.json").write_text(document.model_dump_json(indent=1) + "\n", encoding="utf-8")


def load_fusion_form(run_dir: Path) -> FusionForm:
    """Read a fusion form, in evaluation mode.

    Raises:
        ModelFormatError: A missing, malformed or mismatched file (says which, expected and got).
    """
    document = read_document(run_dir)
    # Without memory of its own: its tables are those of the mapped file, for they may fill most of the machine's.
    with torch.device("meta"):
        form = FusionForm(document.slots, document.widths)
    load_weights(run_dir / "weights.safetensors", form, assign=True)
    return form.eval()


def save_pair(run_dir: Path, pair: TowerPair) -> None:
    """Write `pair.safetensors`; a retraining starts from it."""
    save_weights(run_dir / "pair.safetensors", pair)


def load_pair(run_dir: Path, *, mapped: bool = False) -> TowerPair:
    """Read the dual form of a run, in evaluation mode (raises as `load_fusion_form`).

    Args:
        run_dir: The run.
        mapped: Read the tables where the mapped file has them, for a pair that is not trained any further.
    """
    path = run_dir / "pair.safetensors"
    document = read_document(run_dir)
    # The pair's tables may be narrower or wider than the fused ones, so its dimensions come from its own file.
    weights = read_weights(path)
    dims = [weights.get(f"towers.0.tables.{i}") for i in range(len(document.slots))]
    if any(table is None or table.ndim != 2 for table in dims):  # noqa: PLR2004
        raise ModelFormatError(f"{path}: expected a table (V_f, d_f) a slot, got {sum(t is not None for t in dims)}")
    slots = [
        FieldSlot(**{**slot.__dict__, "dim": table.shape[1]})
        for slot, table in zip(document.slots, dims, strict=True)
        if table is not None
    ]
    with torch.device("meta") if mapped else nullcontext():
        a, b = (Tower(slots, document.widths) for _ in range(2))
        council = [Tower(slots, document.widths) for _ in range(2, min(_count_towers(weights), MOST_TOWERS))]
        pair = TowerPair(a, b, council)
    load_weights(path, pair, assign=mapped)
    return pair.eval()


def _count_towers(weights: Iterable[str]) -> int:
    """How many towers the names of a pair's tensors speak of."""
    return len({name.split(".")[1] for name in weights if name.startswith("towers.")})


def read_document(run_dir: Path) -> ModelDocument:
    """Read `model.json` (raises ModelFormatError)."""
    path = run_dir / "model.json"
    try:
        return ModelDocument.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelFormatError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelFormatError(f"{path}: {where}: {first['msg']}, got {first['input']!r}") from error


def save_weights(path: Path, module: nn.Module) -> None:
    """Write a module's state to a safetensors file (copies, since tables may be views of one stack)."""
    state = {name: value.detach().cpu().clone().contiguous() for name, value in module.state_dict().items()}
    # One key only: safetensors writes several in an order of chance, and equal runs should have equal files.
    save_file(state, path, metadata={"format": f"{FORMAT} {VERSION}"})


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file (raises ModelFormatError)."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelFormatError(f"{path}: cannot be read as safetensors: {error}") from error


def all_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite; in pieces, since a mask of a large table takes more than the table."""
    return all(bool(piece.isfinite().all()) for piece in torch.split(tensor.reshape(-1), PIECE))


def load_weights(path: Path, module: nn.Module, *, assign: bool = False) -> None:
    """Load a module's whole state, checking names, then shapes, then values.

    Args:
        path: A safetensors file.
        module: What to fill.
        assign: Take the file's tensors themselves, where the module has none of its own yet; copy them if false.

    Raises:
        ModelFormatError: Names or shapes that differ, or a value that is not finite.
    """
    state, expected = read_weights(path), module.state_dict()
    if state.keys() != expected.keys():
        missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
        raise ModelFormatError(f"{path}: missing tensors {missing[:5]}, unexpected {extra[:5]}")
    for name, value in state.items():
        if value.shape != expected[name].shape or value.dtype != expected[name].dtype:
            want, got = expected[name], value
            raise ModelFormatError(
                f"{path}: {name}: expected {want.dtype} {tuple(want.shape)}, got {got.dtype} {tuple(got.shape)}"
            )
        if not all_finite(value):
            raise ModelFormatError(f"{path}: {name}: expected finite values, got NaN or infinity")
    module.load_state_dict(state, assign=assign)
