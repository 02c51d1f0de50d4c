"""What encoding costs: rows against columns, with the schema of a display-advertising log.

    python tests/service/features/bench_encoder.py

13 numeric and 26 categorical fields; a tenth of the values is missing, one in twenty is out of vocabulary. Prints, for
requests of 1 to 1000 rows, nanoseconds a value: in column order as the service's typed decoder hands columns over, as
columns and as rows by name, and value by value as the contract states it (`vocabulary.id(field.token(raw))`), and
ratios. Numbers come as JSON numbers or as text.
"""

# ruff: noqa: T201 - a command prints

import random
import time
from collections.abc import Callable

from service.features import CategoricalField, FeatureEncoder, NumericField, Vocabulary, log_squared_edges

NUMERIC, CATEGORICAL, TOKENS = 13, 26, 5000
EDGES = log_squared_edges(1e5)


def encoder_and_tokens() -> tuple[FeatureEncoder, dict[str, list[str]]]:
    rng = random.Random(0)
    numbers = [NumericField(f"I{number}", "candidate", EDGES) for number in range(NUMERIC)]
    words = [CategoricalField(f"C{number}", "candidate") for number in range(CATEGORICAL)]
    tokens = {field.name: [f"{rng.getrandbits(32):08x}" for _ in range(TOKENS)] for field in words}
    buckets = [str(bucket) for bucket in range(len(EDGES) + 1)]
    vocabularies = {field.name: Vocabulary(buckets) for field in numbers}
    vocabularies |= {name: Vocabulary(known[TOKENS // 20 :]) for name, known in tokens.items()}
    return FeatureEncoder([*numbers, *words], vocabularies), tokens


def value(name: str, tokens: dict[str, list[str]], rng: random.Random, *, text: bool) -> str | int | None:
    if rng.random() < 0.1:
        return None
    if name in tokens:
        return "".join(list(rng.choice(tokens[name])))  # a text of its own, as a decoder makes
    number = int(10 ** (4 * rng.random()))
    return str(number) if text else number


def least(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    encoder, tokens = encoder_and_tokens()
    names = [field.name for field in encoder.fields]
    print("  rows  numbers     typed  columns     rows  by value    rows/columns  by value/columns  by value/typed")
    for text in (False, True):
        for count in (1, 10, 100, 1000):
            rng = random.Random(1)
            rows = [{name: value(name, tokens, rng, text=text) for name in names} for _ in range(count)]
            columns = {name: [row[name] for row in rows] for name in names}
            steps = [(encoder.vocabulary(name), encoder.field(name), columns[name]) for name in names]

            def by_value(steps: list = steps) -> list[list[int]]:  # type: ignore[type-arg]
                return [
                    [0 if (token := field.token(raw)) is None else vocabulary.id(token) for raw in raws]
                    for vocabulary, field, raws in steps
                ]

            assert encoder.encode_rows("candidate", rows).T.tolist() == by_value()
            repeats = max(20, 3000 // count)
            scale = 1e9 / (count * len(names))
            order = [columns[name] for name in encoder.plain.names["candidate"]]
            typed = least(lambda: encoder.plain.columns("candidate", order, count), repeats) * scale  # noqa: B023
            as_columns = least(lambda: encoder.encode_columns("candidate", columns, count), repeats) * scale  # noqa: B023
            as_rows = least(lambda: encoder.encode_rows("candidate", rows), repeats) * scale  # noqa: B023
            plain = least(by_value, max(10, repeats // 10)) * scale
            times = "".join(f"{nanoseconds:>6.0f} ns" for nanoseconds in (typed, as_columns, as_rows, plain))
            ratios = (as_rows / as_columns, plain / as_columns, plain / typed)
            kind = "text" if text else "numbers"
            print(f"{count:>6}  {kind:<8}{times}{''.join(f'{ratio:>15.1f}x' for ratio in ratios)}")


if __name__ == "__main__":
    main()
