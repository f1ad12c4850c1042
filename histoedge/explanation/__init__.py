"""Explanation of single predictions: heat maps, and the share of the evidence in the labelled centre.

Models are called through functions only, so explaining an exported file does not import TensorFlow.
"""

from histoedge.explanation.attribution import (
    Gradients,
    Model,
    evidence,
    evidence_of_split,
    exported,
    from_weights,
    images,
    most_confident,
    open_model,
)
from histoedge.explanation.centre import centre_share

__all__ = [
    "Gradients",
    "Model",
    "centre_share",
    "evidence",
    "evidence_of_split",
    "exported",
    "from_weights",
    "images",
    "most_confident",
    "open_model",
]
