"""The door: `python -m benchmarks.ablation`.

    python -m benchmarks.ablation --tasks movielens_latest_tags-random --seeds 1 2 3
    python -m benchmarks.ablation --variants full one_tower born_again ensemble_teacher
    python -m benchmarks.ablation --report-only

Raw data are found under REACTION_DATA_DIR. Every finished run is a line of the ledger, so a command that was stopped
goes on where it was; phases that variants share are trained once. Validation alone is read, never a test split.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from benchmarks.ablation.report import as_json, as_markdown
from benchmarks.ablation.run import Workshop
from benchmarks.ablation.variants import FULL, VARIANTS, staged
from benchmarks.accuracy.ledger import LedgerError, opened
from benchmarks.accuracy.tasks import TASKS
from benchmarks.overrides import OverrideError, overrides
from training.preparation.rows import DataError

if TYPE_CHECKING:
    from benchmarks.ablation.schedules import ControlSettings
    from benchmarks.accuracy.ledger import Ledger, Line

HERE = Path(__file__).resolve().parent.parent
TUNED_ON = 1
"""The seed on which the controls' students are tuned, whichever seeds a command runs."""
SEEDS = range(1, 6)
DEFAULT_TASKS = (
    "movielens_latest_tags-time",
    "movielens_100k-time",
    "avazu-time",
    "movielens_latest_tags-random",
    "movielens_100k-random",
    "avazu-random",
)


def main() -> None:
    """Run what is left to do, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(DEFAULT_TASKS), metavar="TASK")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=list(SEEDS), metavar="SEED")
    parser.add_argument("--set", nargs="+", default=[], metavar="SECTION.KEY=JSON", help="instead of a default")
    parser.add_argument("--work", type=Path, default=Path("build/benchmark"), help="prepared data, shared phases")
    parser.add_argument("--ledger", type=Path, default=HERE / "ablation.jsonl")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of ABLATION.md and ablation.json")
    parser.add_argument("--report-only", action="store_true")
    given = parser.parse_args()
    if given.set and given.ledger.resolve() == (HERE / "ablation.jsonl").resolve():
        parser.error("--set: expected a --ledger and --out of its own, got the page's: its whole is the default")
    try:
        ledger = read(given.ledger, there=given.report_only)
        given.out.mkdir(parents=True, exist_ok=True)  # before the training that would be reported there
    except (LedgerError, OSError) as error:
        parser.error(str(error))
    if not given.report_only:
        for task in given.tasks:
            try:
                workshop = Workshop(task, given.work, overrides(given.set, sections=("afe", "dtf", "train")))
            except (DataError, ValidationError, OverrideError) as error:
                parser.error(str(error))
            for seed, name in itertools.product(given.seeds, given.variants):
                line = finished(ledger, workshop, name, seed)
                found = line.validation
                if found is not None:
                    print(f"{task} seed {seed} {name}: AUC {found.auc:.4f}, log loss {found.log_loss:.4f}", flush=True)
    try:
        content = as_json(read(given.ledger, there=True))  # once more: others may have written to it
    except (LedgerError, OSError) as error:
        parser.error(str(error))
    (given.out / "ablation.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (given.out / "ABLATION.md").write_text(as_markdown(content), encoding="utf-8")


def read(path: Path, *, there: bool) -> Ledger:
    """Open a ledger, and tell of a line that was set aside; one to be written may be new.

    Raises:
        LedgerError: It should hold a run of the ablation, and does not; or a line of it is no run.
    """
    ledger = opened(path, there=there)
    if ledger.torn:
        print(f"{path}: an unfinished last line was set aside in {ledger.aside}", file=sys.stderr)
    if there and not any(line.purpose == "ablation" for line in ledger):  # an empty page would go over one that is not
        raise LedgerError(f"--ledger: expected a run of the ablation in {path}, got none")
    return ledger


def finished(ledger: Ledger, workshop: Workshop, name: str, seed: int) -> Line:
    """Return a variant's line on a seed; what is not in the ledger is run, and what it needs before it."""
    variant = VARIANTS[name]
    budget = 0
    if variant.kind == "control":
        budget = finished(ledger, workshop, FULL, seed).steps or 0
    control = tuned(ledger, workshop, name) if variant.stages else None
    key = workshop.key(name, seed, "ablation", control)
    if key not in ledger:
        ledger.append(workshop.run(name, seed, "ablation", budget=budget, control=control))
    return ledger.lines[key]


def tuned(ledger: Ledger, workshop: Workshop, name: str, seed: int = TUNED_ON) -> ControlSettings:
    """Return a control's settings, tuned by validation log loss on one seed."""
    budget = finished(ledger, workshop, FULL, seed).steps or 0

    def loss(control: ControlSettings) -> float:
        key = workshop.key(name, seed, "trial", control)
        if key not in ledger:
            ledger.append(workshop.run(name, seed, "trial", budget=budget, control=control))
        validation = ledger.lines[key].validation
        return float("inf") if validation is None else validation.log_loss

    return staged(VARIANTS[name].stages, loss)


if __name__ == "__main__":
    main()
