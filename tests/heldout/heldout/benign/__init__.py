from . import arithmetic, convolution, expanded, packing, shapes, structure, tempting  # noqa: F401 (each registers its rewrites)
from .registry import REWRITES  # noqa: F401

FIRST = tuple(REWRITES)  # before the modules of the second set register theirs

from . import fused, lowered, rearranged  # noqa: E402, F401

SECOND = tuple(k for k in REWRITES if k not in FIRST)

from . import respelled  # noqa: E402, F401

THIRD = tuple(k for k in REWRITES if k not in FIRST + SECOND)

from . import kernels  # noqa: E402, F401

FOURTH = tuple(k for k in REWRITES if k not in FIRST + SECOND + THIRD)

from . import deployed  # noqa: E402, F401

FIFTH = tuple(k for k in REWRITES if k not in FIRST + SECOND + THIRD + FOURTH)

from . import reported  # noqa: E402, F401

SIXTH = tuple(k for k in REWRITES if k not in FIRST + SECOND + THIRD + FOURTH + FIFTH)
