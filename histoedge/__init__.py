"""histoedge: a metastasis-detecting CNN from training to the slide scanner, small, fast and proven."""

__version__ = "0.1.0"
