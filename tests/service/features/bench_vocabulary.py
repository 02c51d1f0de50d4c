"""What a look-up costs: a dictionary, our packed arrays, marisa-trie and LMDB, each in a process of its own.

    python tests/service/features/bench_vocabulary.py 100000 1000000 [10000000]

Prints, for every size and form: bytes a token on disk, private memory a token after opening, time to open, and the
time of a look-up as a multiple of the dictionary's, for keys drawn uniformly and by a Zipf law (as requests are).
marisa-trie and LMDB are left out where they are not installed.
"""

# ruff: noqa: T201 - a command prints

import argparse
import gc
import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[3]
FORMS = ("dictionary", "packed", "marisa", "lmdb")
QUERIES = 100_000
REPEATS = 7


def tokens_of(count: int) -> list[str]:
    """Ten hexadecimal digits a token, as anonymised identifiers look."""
    numbers = np.random.default_rng(1).permutation(max(1 << 24, count))[:count]
    return [f"{(int(number) * 40503 + 12345) % (1 << 40):010x}" for number in numbers]


def queries_of(tokens: Sequence[str]) -> dict[str, list[str]]:
    rng = np.random.default_rng(2)
    places = {
        "uniform": rng.integers(0, len(tokens), QUERIES),
        "zipf": np.minimum(rng.zipf(1.2, QUERIES) - 1, len(tokens) - 1),
    }
    return {name: [tokens[at] for at in drawn] for name, drawn in places.items()}


def build(form: str, tokens: list[str], folder: Path) -> None:
    """Write the form's files. For the dictionary that is the vocabulary file, which it is filled from."""
    if form in {"dictionary", "packed"}:
        from service.features.packed import PackedTokens
        from service.features.vocabulary_file import pack

        content = pack(PackedTokens.build(tokens, index=form == "packed"))
        (folder / "vocabulary.safetensors").write_bytes(content)
    elif form == "marisa":
        import marisa_trie

        trie = marisa_trie.Trie(tokens)
        ids = np.empty(len(tokens), dtype=np.int32)
        ids[[trie[token] for token in tokens]] = np.arange(len(tokens), dtype=np.int32)
        trie.save(str(folder / "trie"))
        np.save(folder / "ids.npy", ids)
    else:
        import lmdb

        with lmdb.open(str(folder), map_size=1 << 36) as database, database.begin(write=True) as transaction:
            for token, number in sorted((token.encode(), number) for number, token in enumerate(tokens)):
                transaction.put(token, number.to_bytes(4, "little"), append=True)


def opened(form: str, folder: Path) -> Callable[[str], Any]:
    """The form's look-up of one token."""
    if form in {"dictionary", "packed"}:
        from mmap import ACCESS_READ, mmap

        from service.features import Vocabulary
        from service.features.vocabulary_file import unpack

        with (folder / "vocabulary.safetensors").open("rb") as file:
            content = unpack(mmap(file.fileno(), 0, access=ACCESS_READ), "vocabulary")
        return Vocabulary(content, packed=form == "packed").lookup.one
    if form == "marisa":
        import marisa_trie

        get = marisa_trie.Trie().mmap(str(folder / "trie")).get
        ids = memoryview(np.load(folder / "ids.npy", mmap_mode="r"))
        return lambda token: ids[get(token)]
    import lmdb

    found = lmdb.open(str(folder), readonly=True, lock=False, map_size=1 << 36).begin(buffers=True).get
    return lambda token: int.from_bytes(found(token.encode()), "little")


def anonymous_bytes() -> int:
    """Memory that this process shares with no other and no file backs."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Anonymous:"))


def measure_opening(form: str, folder: Path) -> dict[str, float]:
    """Time and private memory of opening a form that was opened once before: libraries loaded, pages cached."""
    opened(form, folder)
    gc.collect()
    before = anonymous_bytes()
    start = time.perf_counter()
    look_up = opened(form, folder)
    seconds = time.perf_counter() - start
    private = max(0, anonymous_bytes() - before)
    del look_up
    return {"open": seconds, "private": private}


def in_fresh_process(form: str, folder: Path) -> dict[str, float]:
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    command = [sys.executable, __file__, "--open", form, str(folder)]
    outcome = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    return dict(json.loads(outcome.stdout))


def measure_look_ups(folders: Mapping[str, Path], queries: Mapping[str, list[str]]) -> dict[str, dict[str, float]]:
    """Least seconds a look-up, the forms taking turns so that a busy machine is busy for all of them."""
    look_ups = {form: opened(form, folder) for form, folder in folders.items()}
    least: dict[str, dict[str, float]] = {form: dict.fromkeys(queries, math.inf) for form in look_ups}
    for _ in range(REPEATS):
        for name, keys in queries.items():
            for form, look_up in look_ups.items():
                # fresh text, as of a decoded request: its hash is not cached, and it is no key's own object
                fresh = [bytes(key, "ascii").decode() for key in keys]
                start = time.perf_counter()
                for key in fresh:
                    look_up(key)
                least[form][name] = min(least[form][name], (time.perf_counter() - start) / len(keys))
    return least


def report(count: int, forms: Sequence[str]) -> Iterator[str]:
    """One line a form."""
    tokens = tokens_of(count)
    with tempfile.TemporaryDirectory() as name:
        folders = {form: Path(name) / form for form in forms}
        for form, folder in folders.items():
            folder.mkdir()
            build(form, tokens, folder)
        queries = queries_of(tokens)
        del tokens
        openings = {form: in_fresh_process(form, folder) for form, folder in folders.items()}
        seconds = measure_look_ups(folders, queries)
        for form, folder in folders.items():
            size = sum(path.stat().st_size for path in folder.iterdir() if path.name != "lock.mdb")
            ratios = [seconds[form][kind] / seconds[FORMS[0]][kind] for kind in queries]
            yield (
                f"{count:>10} {form:<11}{size / count:>8.1f}{openings[form]['private'] / count:>11.1f}"
                f"{openings[form]['open']:>9.3f}{ratios[0]:>8.1f}x{ratios[1]:>7.1f}x"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=int, default=[100_000, 1_000_000])
    parser.add_argument("--open", nargs=2, metavar=("FORM", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open:
        form, folder = arguments.open
        print(json.dumps(measure_opening(form, Path(folder))))
        return
    modules = {"marisa": "marisa_trie", "lmdb": "lmdb"}
    forms = [form for form in FORMS if form not in modules or importlib.util.find_spec(modules[form])]
    print("    tokens form         disk B  private B   open s  uniform    zipf", flush=True)
    for count in arguments.sizes:
        for line in report(count, forms):
            print(line, flush=True)


if __name__ == "__main__":
    main()
