"""The error classes of histoedge; the command line catches them in one place.

A message is one line: what is wrong, where, what was expected, what to do.
Any other exception is a bug and keeps its traceback.
"""


class HistoedgeError(Exception):
    """An expected error: the command line prints its message, one line, and exits with ``exit_code``."""

    exit_code = 1


class ConfigError(HistoedgeError):
    """A setting, a name or an option value that cannot be used."""


class DataError(HistoedgeError):
    """A data set, patch or image that is missing, unreadable or invalid."""


class ModelError(HistoedgeError):
    """A model file, manifest, golden file or checkpoint that is missing, altered or unsuitable."""


class RuntimeUnavailable(HistoedgeError):
    """A runtime that is not installed, or that cannot open this kind of file."""


class ComparisonFailed(HistoedgeError):
    """A comparison that ran and failed: a verdict, a self-test, a gate."""

    exit_code = 3
