"""Verification of exported files: golden patches on every installed runtime, the source network, the twin file."""

from histoedge.verification.verdict import Verdict, is_current, passed_on
from histoedge.verification.verifier import compare_twins, verify

__all__ = ["Verdict", "compare_twins", "is_current", "passed_on", "verify"]
