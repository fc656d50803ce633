from . import activation, attention, convolution, indexing, normalisation, numeric, positions, recurrent, spellings, wiring, weights  # noqa: F401 (each registers its faults)
from .registry import FAULTS, Planted  # noqa: F401

FIRST = tuple(FAULTS)  # before the modules of the second set register theirs

from . import ported_attention, ported_layers, ported_weights  # noqa: E402, F401

SECOND = tuple(k for k in FAULTS if k not in FIRST)

from . import again_layers, again_paths  # noqa: E402, F401

THIRD = tuple(k for k in FAULTS if k not in FIRST + SECOND)

from . import kernels  # noqa: E402, F401

FOURTH = tuple(k for k in FAULTS if k not in FIRST + SECOND + THIRD)

from . import deployed  # noqa: E402, F401

FIFTH = tuple(k for k in FAULTS if k not in FIRST + SECOND + THIRD + FOURTH)

from . import reported  # noqa: E402, F401

SIXTH = tuple(k for k in FAULTS if k not in FIRST + SECOND + THIRD + FOURTH + FIFTH)
