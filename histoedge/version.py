"""The version, in its own module because lower layers must not import the Python API."""

__version__ = "0.1.0"
