"""A small finished run on disk, made of the real parts and random weights: what the export reads, without training."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from forms import random_form, random_pair

from service.features import CategoricalField, FeatureEncoder, MultiValuedField, NumericField, Vocabulary
from training.files import digests, write_json, write_jsonl
from training.models.base import FieldSlot, field_slots
from training.models.files import save_model, save_pair
from training.reference import reference_statistics
from training.runs import RUN_FORMAT, RUN_VERSION, ValidationSample

if TYPE_CHECKING:
    from pathlib import Path

    from service.features import Field
    from training.models.reaction import FusionForm

RATE = 0.25

# One of every kind on each side; a training-only field; one that AFE dropped; one whose gates closed in both branches.
FIELDS: tuple[Field, ...] = (
    CategoricalField("user", "context"),
    NumericField("hour", "context", edges=(6.0, 12.0, 18.0)),
    MultiValuedField("tags", "context", max_values=3, pooling="mean"),
    CategoricalField("item", "candidate"),
    NumericField("price", "candidate", edges=(0.5, 1.5, 10.0)),
    MultiValuedField("genres", "candidate", max_values=2, pooling="sum"),
    CategoricalField("position", "candidate", serving_constant="1"),
    CategoricalField("noise", "candidate"),
    CategoricalField("muted", "candidate"),
)
DROPPED, MUTED = "noise", "muted"
DIMS = {"user": 4, "hour": 2, "tags": 4, "item": 8, "price": 2, "genres": 4, "position": 2, "muted": 4}


MOST_PAIR_ROWS = 100_000


def raw_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Raw rows of all fields, with missing values, values that are seen once, and numbers on edges."""
    generator = np.random.default_rng(seed)

    def some(values: list[Any], least: int, most: int) -> list[Any]:
        return [values[i] for i in generator.permutation(len(values))[: generator.integers(least, most + 1)]]

    rows = []
    for number in range(count):
        context = {
            "user": f"u{generator.zipf(1.6) % 40}",
            "hour": int(generator.integers(0, 24)),
            "tags": some(["a", "b", "ü", "d", "e"], 0, 4),
        }
        candidate = {
            "item": int(generator.integers(0, 30)),
            "price": round(float(generator.lognormal()), 1),
            "genres": "|".join(some(["x", "y", "z"], 0, 3)),
            "position": str(generator.integers(1, 5)),
            "noise": str(generator.integers(0, 9)),
            "muted": str(generator.integers(0, 4)),
        }
        for values in (context, candidate):
            for name in values:
                if generator.random() < 0.04:
                    values[name] = None
        rows.append({"context": context, "candidate": candidate, "row": number})
    return rows


def fit_encoder(rows: list[dict[str, Any]]) -> FeatureEncoder:
    """Vocabularies of the rows; a token seen once is out of vocabulary."""
    vocabularies = {}
    for field in FIELDS:
        counts = Counter(token for row in rows for token in field.tokens(row[field.side][field.name]))
        vocabularies[field.name] = Vocabulary.fit(counts, 2, field.reserved)
    return FeatureEncoder(FIELDS, vocabularies)


def make_form(encoder: FeatureEncoder, seed: int = 0) -> FusionForm:
    """A random fusion form on the encoder's layout, without the dropped field, deaf to the muted one."""
    form = random_form(model_slots(encoder), (16, 8), seed)
    muted = [slot.name for slot in form.slots].index(MUTED)
    for branch in (0, 1):
        form.state_dict()[f"branches.{branch}.gates"][muted] = 0.0
    return form


def model_slots(encoder: FeatureEncoder) -> tuple[FieldSlot, ...]:
    slots = field_slots(encoder, lambda _, __: 1)
    return tuple(replace(slot, dim=DIMS[slot.name]) for slot in slots if slot.name in DIMS)


def write_run(
    path: Path,
    *,
    form: FusionForm | None = None,
    encoder: FeatureEncoder | None = None,
    sample: list[dict[str, Any]] | None = None,
    fused: bool = True,
    **record: object,
) -> Path:
    """Write a finished run.

    Args:
        path: The directory to make.
        form: The fusion form; a random one if absent.
        encoder: Its encoder; fitted on rows of its own if absent.
        sample: Rows of the validation split; 300 if absent.
        fused: Whether the fusion phase ran.
        **record: What `run.json` says instead.
    """
    sample = sample or raw_rows(300, seed=2)
    encoder = encoder or fit_encoder(raw_rows(800, seed=1))
    form = form or make_form(encoder)
    path.mkdir()
    encoder.save(path)
    save_model(path, form)
    # The pair is only timed; its tables take as much again, twice.
    pair_slots = [replace(slot, rows=min(slot.rows, MOST_PAIR_ROWS)) for slot in form.slots]
    save_pair(path, random_pair(pair_slots, form.widths, 3))
    ids = {side: encoder.encode_rows(side, [row[side] for row in sample]) for side in ("context", "candidate")}
    with torch.no_grad():
        pctr = torch.sigmoid(form(*(torch.from_numpy(own) for own in ids.values()))).numpy()
    label = (np.random.default_rng(5).random(len(pctr)) < pctr).astype(np.uint8)
    ValidationSample(ids["context"], ids["candidate"], label, pctr).save(path / "validation.safetensors")
    reference = reference_statistics(encoder, ids, label, pctr, negative_sampling_rate=RATE)
    write_json(path / "reference.json", reference)
    write_jsonl(path / "raw_sample.jsonl", sample)
    models = ("tower_a", "tower_b", "pair", *(["fused"] if fused else []))
    write_json(path / "metrics.json", {"validation": {name: {"auc": 0.75, "log_loss": 0.5} for name in models}})
    phases = ("tower_a", "tower_b", *(["fusion"] if fused else []))
    write_jsonl(path / "history.jsonl", [{"phase": phase, "step": 1} for phase in phases])
    for name in ("config.toml", "report.html"):
        (path / name).write_text("\n")
    data = {"name": "tiny", "dataset": "table", "negative_sampling_rate": RATE, "rows": {"train": 800, "valid": 300}}
    seal(path, {"data": data, **record})
    return path


def seal(path: Path, record: dict[str, Any] | None = None) -> None:
    """Write `run.json` anew over the files as they are, with what it said before unless told otherwise."""
    file = path / "run.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    file.unlink(missing_ok=True)
    document = {
        "format": RUN_FORMAT,
        "version": RUN_VERSION,
        "status": "complete",
        "id": "tiny-run-1",
        **before,
        **(record or {}),
        "files": digests(path, leave_out="run.json"),
    }
    write_json(file, document)


def no_trace_of(out: Path) -> bool:
    """Whether neither a bundle nor a part of one was left at or beside its path."""
    return not [path for path in out.parent.iterdir() if out.name in path.name]
