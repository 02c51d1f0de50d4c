"""Turns a run directory into a bundle: load, fuse, write ONNX, optimise, gate on parity, write."""

import service  # noqa: F401 - switches ONNX Runtime's telemetry off, which works before its first import only
