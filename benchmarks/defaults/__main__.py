"""Defaults on tables of every kind: `python -m benchmarks.defaults`.

Prints, for every table, AUC and log loss of the fused model beside one-hot logistic regression (its C tuned) and, where
the law of the data is known, the best possible model; the mean over seeds, and the spread of the differences. A line
is marked where the fused model is behind logistic regression by more than twice the standard error. Every finished run
is a line of the ledger, and not run again; `DEFAULTS.md` beside it is written from those on the test split.

    python -m benchmarks.defaults                                   # every made-up table, three seeds, test split
    REACTION_DATA_DIR=... python -m benchmarks.defaults --tables criteo avazu --split valid
    python -m benchmarks.defaults --tables noise --set train.table_l2=100 --split valid
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmarks.accuracy.models import METHOD
from benchmarks.defaults.measure import Measured, measure
from benchmarks.defaults.report import HEAD, by_table, line, markdown
from benchmarks.defaults.tables import REAL, TABLES
from benchmarks.overrides import OverrideError, overrides
from training.preparation.rows import DataError

LEDGER = Path(__file__).resolve().parents[1] / "defaults.jsonl"


def main() -> None:
    """Run what is left to do, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*TABLES, *REAL]
    parser.add_argument("--tables", nargs="+", default=list(TABLES), metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--split", choices=["valid", "test"], default="test")
    parser.add_argument("--set", nargs="+", default=[], metavar="SECTION.KEY=JSON", help="instead of a default")
    parser.add_argument("--work", type=Path, default=Path("build/defaults"), help="where prepared data are kept")
    parser.add_argument("--ledger", type=Path, default=LEDGER, help="a finished run a line")
    given = parser.parse_args()
    splits = [f"{name}:{split}" for name in REAL for split in ("time", "random")]
    unknown = [table for table in given.tables if table not in {*names, *splits}]
    if unknown:
        parser.error(f"--tables: expected names among {', '.join(names)}; got {', '.join(unknown)}")
    try:
        about = {"split": given.split, "set": overrides(given.set), "method": METHOD}
    except OverrideError as error:
        parser.error(str(error))
    print(HEAD, flush=True)
    for table in given.tables:
        try:
            runs = [finished(given.ledger, table, seed, given.work, about) for seed in given.seeds]
        except (DataError, ValidationError) as error:
            parser.error(f"{table}: {error}")
        print(line(table, runs), flush=True)
    page(given.ledger)


def finished(ledger: Path, table: str, seed: int, work: Path, about: dict[str, Any]) -> Measured:
    """A run of the ledger; one that is not there is made, and written down."""
    for record, run in read(ledger):
        if (run.table, run.seed) == (table, seed) and all(record[key] == value for key, value in about.items()):
            return run
    run = measure(table, seed, work, about["set"], split=about["split"])
    with ledger.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**asdict(run), **about}) + "\n")
    return run


def read(ledger: Path) -> list[tuple[dict[str, Any], Measured]]:
    """Each line of the ledger, and what it measured."""
    if not ledger.exists():
        return []
    found = []
    for number, text in enumerate(ledger.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(text)
            found.append((record, Measured(**{key: record[key] for key in Measured.__dataclass_fields__})))
        except (ValueError, KeyError) as error:
            raise SystemExit(
                f"{ledger}:{number}: expected a run of this bench, got {error!r}: take the line out"
            ) from None
    return found


def page(ledger: Path) -> None:
    """Write `DEFAULTS.md`: defaults as they are, on the test split, by the newest method of the ledger."""
    plain = [(record, run) for record, run in read(ledger) if record["split"] == "test" and not record["set"]]
    method = max((record["method"] for record, _ in plain), default=METHOD)
    shown = [(record, run) for record, run in plain if record["method"] == method]
    ledger.with_name("DEFAULTS.md").write_text(markdown(by_table(run for _, run in shown), method), encoding="utf-8")


if __name__ == "__main__":
    main()
