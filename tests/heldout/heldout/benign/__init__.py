from . import arithmetic, convolution, expanded, packing, shapes, structure, tempting  # noqa: F401 (each registers its rewrites)
from .registry import REWRITES  # noqa: F401
