"""What `advise` refuses to go on with; each message says where, what was expected and what it got."""

__all__ = ["AdviseError", "LoadError", "OutputError", "ServerError"]


class AdviseError(Exception):
    """Base of these."""


class ServerError(AdviseError):
    """A server to measure did not start."""


class LoadError(AdviseError):
    """A server to measure answered something other than scores."""


class OutputError(AdviseError):
    """The file of settings cannot be written where it was asked for."""
