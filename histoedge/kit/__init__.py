"""Write one folder to copy: a verified model, the code that runs it, a self-test, examples and a README.

The target machine needs Python, numpy and one interpreter, but not histoedge.
"""

from histoedge.kit.folder import embed

__all__ = ["embed"]
