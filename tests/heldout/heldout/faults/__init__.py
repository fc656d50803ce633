from . import activation, attention, convolution, indexing, normalisation, numeric, positions, recurrent, wiring, weights  # noqa: F401 (each registers its faults)
from .registry import FAULTS, Planted  # noqa: F401
