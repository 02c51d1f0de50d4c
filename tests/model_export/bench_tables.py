"""Large vocabularies and tables, from fitting to a scored request: times, memory and bytes.

    python -m tests.model_export.bench_tables [--scale 1.0] [--dim 64] [--dir DIR] [--only look-ups vocabulary tables]

At scale 1 one field has 10^7 tokens of 10 bytes and a float32 table of 2.4 GiB, which no single protobuf can hold.
Tables go to files beside their graphs at every scale. Each step runs in a process of its own: its memory is its own.

look-ups    one model's look-up in each form of its table: what `TABLE_PASSES` write, and what they were chosen over
vocabulary  fit, save and open; look-ups of 1, 100 and 1000 values a call beside a dictionary's
tables      export of all precisions, then a start of each: digests, session, self-test, memory, time a call
"""

# ruff: noqa: T201 - a bench prints
import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]  # the tests' own modules, as pytest finds them

TOKENS = 10_000_000
TABLE_COPIES = 4  # of float32: the run's weights, and three precisions that take less than two
PRIVATE_COPIES = 4.2  # of float32, at most at once in an export's memory with no file behind it: 9.8 GiB at scale 1
GIB = 1 << 30
MIB = 1 << 20
ROWS = (1, 100, 1000)
SECTIONS = ("look-ups", "vocabulary", "tables")


def memory() -> dict[str, float]:
    """MiB of this process: resident, of that private (no file behind it), and the peak of what is resident."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    keys = {"resident": "VmRSS", "private": "RssAnon", "peak": "VmHWM"}
    return {name: int(lines[key].split()[0]) / 1024 for name, key in keys.items()}


@contextmanager
def watched() -> Iterator[list[float]]:
    """Collects this process's private memory in MiB while its block runs; pages of mapped files are not in it."""
    seen, done = [memory()["private"]], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            seen.append(memory()["private"])

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield seen
    done.set()
    thread.join()


def timed(what: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and its seconds."""
    start = time.perf_counter()
    return what(), time.perf_counter() - start


def token(number: int) -> str:
    """Ten hexadecimal digits, all different."""
    return f"{number * 40_503 % (1 << 40):010x}"


def sample_rows(count: int, tokens: int) -> list[dict[str, Any]]:
    """Raw rows whose user is any of the tokens."""
    from run_directory import raw_rows

    rows = raw_rows(count, seed=2)
    numbers = np.random.default_rng(3).integers(0, tokens, count)
    for row, number in zip(rows, numbers, strict=True):
        row["context"]["user"] = token(int(number))
    return rows


def fit_step(folder: Path, tokens: int) -> dict[str, Any]:
    """Fit an encoder whose user has many tokens, and save it."""
    from run_directory import FIELDS, fit_encoder, raw_rows

    from service.features import FeatureEncoder, Vocabulary

    small = fit_encoder(raw_rows(800, seed=1))
    frequencies = np.random.default_rng(1).zipf(1.3, tokens).tolist()
    counts = {token(number): frequency for number, frequency in enumerate(frequencies)}
    del frequencies
    before = memory()
    vocabulary, fit_s = timed(lambda: Vocabulary.fit(counts))
    encoder = FeatureEncoder(FIELDS, {f.name: small.vocabulary(f.name) for f in FIELDS} | {"user": vocabulary})
    folder.mkdir()
    _, save_s = timed(lambda: encoder.save(folder))
    size = max(path.stat().st_size for path in folder.rglob("*.safetensors"))
    return {"fit_s": fit_s, "save_s": save_s, "bytes": size, "counts": before, "memory": memory()}


def open_step(folder: Path, tokens: int) -> dict[str, Any]:
    """Open the encoder, narrow it for serving, and look values up beside a dictionary."""
    from service.features import FeatureEncoder

    encoder, open_s = timed(lambda: FeatureEncoder.open(folder))
    _, serving_s = timed(lambda: encoder.for_serving([]))
    after = memory()
    vocabulary = encoder.vocabulary("user")
    dictionary = {name: number.to_bytes(4, sys.byteorder) for number, name in enumerate(vocabulary.tokens(), 2)}
    forms = {
        "dictionary": lambda raws: (
            b"".join(map(dictionary.__getitem__, raws)) if len(raws) == 1 else b"".join(itemgetter(*raws)(dictionary))
        ),
        "packed": vocabulary.lookup.many,
    }
    ordered = list(dictionary)
    generator = np.random.default_rng(4)
    times: dict[str, dict[str, float]] = {}
    for kind in ("uniform", "zipf"):
        for count in ROWS:
            spent: dict[str, list[float]] = {form: [] for form in forms}
            for _ in range(max(40, 20_000 // count)):
                for form, look_up in forms.items():
                    # other values each time, and fresh text as of a decoded request: nothing of it is in a cache
                    drawn = generator.integers(0, tokens, count)
                    if kind == "zipf":
                        drawn = np.minimum(generator.zipf(1.2, count) - 1, tokens - 1)
                    raws = [ordered[number].encode().decode() for number in drawn]
                    spent[form].append(timed(lambda look_up=look_up, raws=raws: look_up(raws))[1] / count)  # type: ignore[misc]
            times[f"{kind}, {count}"] = {form: float(np.median(found)) * 1e9 for form, found in spent.items()}
    return {"open_s": open_s, "serving_s": serving_s, "memory": after, "times": times}


def run_step(folder: Path, run: Path, tokens: int, dim: int) -> dict[str, Any]:
    """Write a run whose user has a table of many rows; drawn in place, for it fills the memory once."""
    import torch
    from forms import random_form
    from run_directory import model_slots, write_run

    from service.features import FeatureEncoder
    from training.models.reaction import FusionForm

    encoder = FeatureEncoder.open(folder)
    slots = tuple(replace(slot, dim=dim) if slot.name == "user" else slot for slot in model_slots(encoder))
    small = random_form([replace(slot, rows=min(slot.rows, 1000)) for slot in slots], (64, 32))
    form = FusionForm(slots, (64, 32)).eval()
    state = form.state_dict()
    for name, values in small.state_dict().items():
        if values.shape == state[name].shape:
            state[name].copy_(values)
        else:
            state[name].normal_(0.0, 0.3, generator=torch.Generator().manual_seed(5))
    del small
    write_run(run, form=form, encoder=encoder, sample=sample_rows(2000, tokens))
    return memory()


def export_step(run: Path, out: Path) -> dict[str, Any]:
    """Export every precision, tables beside their graphs."""
    from model_export.export import ExportOptions, export_run
    from model_export.variants import VariantGates
    from service.bundle import PRECISIONS

    # The weights are drawn at random, and so are the labels: what AUC does says nothing here.
    options = ExportOptions(precisions=PRECISIONS, external_above=0, gates=VariantGates(auc=1.0, log_loss=1.0))
    with watched() as private:
        exported, seconds = timed(lambda: export_run(run, out, options))
    lines = [f"{attempt.precision}: {attempt.why}" for attempt in exported.variants]
    return {"seconds": seconds, "private": max(private), "variants": lines, "tables": exported.graph.table_bytes}


def start_step(bundle: Path, precision: Any) -> dict[str, Any]:
    """Start as the service does, then score."""
    from service.bundle import read_bundle
    from service.scorer import Scorer

    _, unverified_s = timed(lambda: read_bundle(bundle, verify=False))
    read, read_s = timed(lambda: read_bundle(bundle))
    scorer, session_s = timed(lambda: Scorer(read, precision=precision))
    report, test_s = timed(scorer.self_test)
    started = memory()
    users = len(read.encoder.vocabulary("user"))
    context_ids, candidate_ids = scorer.encode(None, [{**row.context, **row.candidate} for row in read.golden])
    column = next(c.first for c in read.encoder.columns("context") if c.name == "user")
    generator, times = np.random.default_rng(6), {}
    for rows in ROWS:
        spent = []
        for _ in range(300):
            drawn = generator.integers(0, len(candidate_ids), rows)
            # a user a row, so that the big table is read at random, as a candidate field's would be
            context = context_ids[drawn].copy()
            context[:, column] = generator.integers(0, users, rows)
            candidate = candidate_ids[drawn]
            spent.append(timed(lambda context=context, candidate=candidate: scorer.run(context, candidate))[1])  # type: ignore[misc]
        times[str(rows)] = float(np.median(spent)) * 1e6
    return {
        "digest_s": read_s - unverified_s,
        "open_s": unverified_s,
        "session_s": session_s,
        "test_s": test_s,
        "difference": report.largest_difference,
        "memory": started,
        "after": memory(),
        "times": times,
    }


STEPS: dict[str, Callable[..., dict[str, Any]]] = {
    "fit": lambda folder, tokens: fit_step(Path(folder), int(tokens)),
    "open": lambda folder, tokens: open_step(Path(folder), int(tokens)),
    "run": lambda folder, run, tokens, dim: run_step(Path(folder), Path(run), int(tokens), int(dim)),
    "export": lambda run, out: export_step(Path(run), Path(out)),
    "start": lambda bundle, precision: start_step(Path(bundle), precision),
}


def step(name: str, *words: object) -> dict[str, Any]:
    """Run a step in a process of its own."""
    command = [sys.executable, "-m", "tests.model_export.bench_tables", "--step", name, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def show_vocabulary(folder: Path, tokens: int) -> dict[str, Any]:
    """Fit, save, open, look up."""
    fitted = step("fit", folder, tokens)
    opened = step("open", folder, tokens)
    size, private = fitted["bytes"], opened["memory"]["private"]
    print(f"vocabulary of {tokens:,} tokens")
    print(
        f"  fit {fitted['fit_s']:.1f} s, save {fitted['save_s']:.1f} s: {size / MIB:,.0f} MiB, "
        f"{size / tokens:.1f} B a token"
    )
    print(f"  peak {fitted['memory']['peak']:,.0f} MiB, of which the counts {fitted['counts']['resident']:,.0f}")
    print(
        f"  open {opened['open_s']:.2f} s, for_serving {opened['serving_s']:.2f} s; private {private:,.0f} MiB in all"
    )
    for case, found in opened["times"].items():
        ratio = found["packed"] / found["dictionary"]
        print(
            f"  {case:>13} a call: {found['packed']:6.0f} ns a value, "
            f"{ratio:.2f}x a dictionary's {found['dictionary']:.0f}"
        )
    return {"fit": fitted, "open": opened}


def show_tables(place: Path, folder: Path, tokens: int, dim: int) -> dict[str, Any]:
    """Export, start, score."""
    run, bundle = place / "run", place / "bundle"
    step("run", folder, run, tokens, dim)
    exported = step("export", run, bundle)
    shutil.rmtree(run)
    size = exported["tables"]
    print(f"tables of {size / GIB:.2f} GiB in float32 ({tokens:,} rows of {dim})")
    print(f"  export {exported['seconds']:.1f} s, {exported['private'] / 1024:.2f} GiB private at most")
    for line in exported["variants"]:
        print(f"  {line}")
    total = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    print(f"  bundle {total / GIB:.2f} GiB; its start:")
    print("  precision  digest s  open s  session s  test s  private MiB  resident MiB  µs, 1   100    1000")
    starts = {}
    for precision in json.loads((bundle / "manifest.json").read_text())["variants"] | {"float32": None}:
        found = starts[precision] = step("start", bundle, precision)
        print(
            f"  {precision:<10}{found['digest_s']:9.2f}{found['open_s']:8.2f}{found['session_s']:11.3f}"
            f"{found['test_s']:8.3f}"
            f"{found['after']['private']:13,.0f}{found['after']['resident']:14,.0f}"
            + "".join(f"{found['times'][str(rows)]:8.1f}" for rows in ROWS)
        )
    return {"export": exported, "starts": starts}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the bench, and give back what it printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of 10^7 tokens")
    parser.add_argument("--dim", type=int, default=64, help="columns of the large table")
    parser.add_argument("--dir", type=Path, help="where to write; a directory for temporary files if absent")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.step:
        print(json.dumps(STEPS[given.step[0]](*given.step[1:])))
        return {}
    tokens = max(1000, int(TOKENS * given.scale))
    found: dict[str, Any] = {}
    if "look-ups" in given.only:
        from bench_look_ups import show

        found["look-ups"] = show(rows=max(1000, tokens // 20))
    if set(given.only) == {"look-ups"}:
        return found
    with tempfile.TemporaryDirectory(dir=given.dir) as name:
        place = Path(name)
        needed = TABLE_COPIES * 4 * tokens * given.dim if "tables" in given.only else 100 * tokens
        free = shutil.disk_usage(place).free
        if free < needed:
            sys.exit(
                f"{place}: expected {needed / GIB:.1f} GiB free for the files, got {free / GIB:.1f}; "
                f"see --dir and --scale"
            )
        print(f"{free / GIB:.1f} GiB free at {place}, {needed / GIB:.1f} GiB needed", flush=True)
        if "tables" in given.only:
            private = PRIVATE_COPIES * 4 * tokens * given.dim
            print(f"the export takes about {private / GIB:.1f} GiB of memory, pages of its files aside", flush=True)
        found["vocabulary"] = show_vocabulary(place / "encoder", tokens)
        if "tables" in given.only:
            found["tables"] = show_tables(place, place / "encoder", tokens, given.dim)
    return found


if __name__ == "__main__":
    main()
