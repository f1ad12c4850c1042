"""Every deliberate error of histoedge: one small tree, caught once, in the command line.

A message is one line: what was found, where, what was expected, what to do.
Anything that is not a ``HistoedgeError`` is a bug and keeps its traceback.
"""


class HistoedgeError(Exception):
    """A deliberate error: the command line prints its one line and exits with ``exit_code``."""

    exit_code = 1


class ConfigError(HistoedgeError):
    """A setting, a name or an option value that cannot be used."""


class DataError(HistoedgeError):
    """A data set, patch or image that is missing, unreadable or not what it should be."""


class ModelError(HistoedgeError):
    """A model file, manifest, golden file or checkpoint that is missing, altered or unsuitable."""


class RuntimeUnavailable(HistoedgeError):
    """A runtime that is not installed, or that cannot open this kind of file."""


class ComparisonFailed(HistoedgeError):
    """A comparison that ran and failed: a verdict, a self-test, a gate."""

    exit_code = 3
