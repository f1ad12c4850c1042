"""Where the model looked, and whether it looked where the label speaks of: the centre 32 x 32 px.

A model is asked through functions alone, so that exported files need no TensorFlow here.
"""

from histoedge.explanation.attribution import (
    UNIFORM_SHARE,
    Gradients,
    Model,
    centre_share,
    evidence,
    exported,
    from_weights,
    images,
    most_confident,
    of_split,
)

__all__ = [
    "UNIFORM_SHARE",
    "Gradients",
    "Model",
    "centre_share",
    "evidence",
    "exported",
    "from_weights",
    "images",
    "most_confident",
    "of_split",
]
