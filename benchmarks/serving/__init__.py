"""The service beside the floors of its own stack, the tutorial everyone starts from, and other model servers.

`python -m benchmarks.serving` (or `make bench-serving`) measures and writes `benchmarks/serving.json` and
`benchmarks/SERVING.md`.
"""
