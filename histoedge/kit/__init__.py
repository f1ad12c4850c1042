"""One folder to copy: a verified model, the code that runs it, a self-test, examples and a page to read.

Nothing of histoedge need be installed where the folder goes: Python, numpy and one interpreter.
"""

from histoedge.kit.folder import embed

__all__ = ["embed"]
