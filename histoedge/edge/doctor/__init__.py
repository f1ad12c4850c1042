"""The doctor: the mistake behind the logits that a program got for the golden patches.

``handover`` writes the golden patches and reads the program's logits, ``mistakes`` simulates what integrators get wrong
(``geometry``, ``jpeg``), ``diagnosis`` names the mistake that explains the logits.
"""

from .diagnosis import Case, Diagnosis, diagnose
from .handover import read_logits, write_golden

__all__ = ["Case", "Diagnosis", "diagnose", "read_logits", "write_golden"]
