"""The doctor: find the integration mistake that explains a program's logits of the golden patches.

``handover`` writes the golden patches and reads the program's logits, ``mistakes`` simulates common mistakes (with
``windows`` and ``jpeg``), ``diagnosis`` finds the mistake that explains the logits.
"""

from .diagnosis import Case, Diagnosis, diagnose
from .handover import read_logits, write_golden

__all__ = ["Case", "Diagnosis", "diagnose", "read_logits", "write_golden"]
