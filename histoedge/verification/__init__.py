"""Does an exported file answer as it should, on every runtime there is?"""

from histoedge.verification.verdict import Verdict, is_current, passed_on
from histoedge.verification.verifier import compare_twins, verify

__all__ = ["Verdict", "compare_twins", "is_current", "passed_on", "verify"]
