"""Measurements that take minutes and a quiet machine; the tests of their pure parts are in `tests/benchmarks`."""
