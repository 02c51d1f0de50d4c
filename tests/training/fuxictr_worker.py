"""FuxiCTR's side of bench_prepare.py, run by an interpreter of its own that has FuxiCTR.

It prepares the three files in a folder once for every line read from standard input, and answers with the seconds. The
columns are declared as FuxiCTR declares Criteo: counts through its `convert_to_bucket` (floor of the squared
logarithm), then all 39 as categories of at least 2 occurrences, so that both sides do the same work. Ray is started
beforehand.
"""

import importlib
import os
import shutil
import sys
import time

ANSWERS = os.fdopen(os.dup(1), "w")  # Ray and progress bars write to standard output as well
os.dup2(2, 1)


def main(folder: str) -> None:
    """Prepare on request."""
    builder = importlib.import_module("fuxictr.preprocess.build_dataset")
    processor = importlib.import_module("fuxictr.datasets.criteo").CustomizedFeatureProcessor
    columns = [
        {
            "name": [f"I{number}" for number in range(1, 14)],
            "active": True,
            "dtype": "float",
            "type": "categorical",
            "preprocess": "convert_to_bucket",
            "fill_na": 0,
        },
        {
            "name": [f"C{number}" for number in range(1, 27)],
            "active": True,
            "dtype": "str",
            "type": "categorical",
            "fill_na": "",
        },
    ]
    builder.init_ray()
    print("ready", file=ANSWERS, flush=True)
    for _ in sys.stdin:
        shutil.rmtree(f"{folder}/fuxictr", ignore_errors=True)
        encoder = processor(
            feature_cols=[dict(column) for column in columns],
            label_col={"name": "label", "dtype": "float"},
            dataset_id="fuxictr",
            data_root=folder,
        )
        start = time.perf_counter()
        builder.build_dataset(
            encoder,
            train_data=f"{folder}/train.csv",
            valid_data=f"{folder}/valid.csv",
            test_data=f"{folder}/test.csv",
            min_categr_count=2,
        )
        print(time.perf_counter() - start, file=ANSWERS, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
