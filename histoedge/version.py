"""The release, in a module of its own: the modules below the Python API may not import that API."""

__version__ = "0.1.0"
