"""What the load tool refuses to go on with.

::

    BenchError
    ├── TargetError    the target cannot be reached, or does not answer as a scoring service
    └── BodyError      the bodies to send cannot be read or made
"""

__all__ = ["BenchError", "BodyError", "TargetError"]


class BenchError(Exception):
    """Base: says where, what was expected, what it got."""


class TargetError(BenchError):
    """The target cannot be reached, or its answers are not what was asked for."""


class BodyError(BenchError):
    """A file of bodies, rows or columns is not as expected."""
