"""REACTION beside the field's baselines on the same encoded data; run by `python -m benchmarks.accuracy`."""
