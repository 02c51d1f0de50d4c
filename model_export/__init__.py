"""Turns a run directory into a bundle: load, fuse, write ONNX, optimise, gate on parity, write."""
