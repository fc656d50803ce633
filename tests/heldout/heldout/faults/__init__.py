from . import activation, attention, convolution, indexing, normalisation, numeric, positions, recurrent, spellings, wiring, weights  # noqa: F401 (each registers its faults)
from .registry import FAULTS, Planted  # noqa: F401
