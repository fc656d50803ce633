"""What is told of a tensor's elements and of the storage in which they lie."""

from __future__ import annotations

import math
from typing import Any, Optional

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import _disable_current_modes

from ._array import EXTRA, SHORT

# Offset, shape, strides, type, whether conjugate, whether negative; a count of writes may follow.
Place = tuple[Any, ...]
# Types of which a trace holds elements.
STORED = {*SHORT.values(), *(short for short, _ in EXTRA.values())}


def short(dtype: torch.dtype) -> str:
    """The name that a trace has for a type."""
    name = str(dtype).removeprefix("torch.")
    if name in EXTRA:
        return EXTRA[name][0]
    long = {"complex64": "c64", "complex128": "c128"}
    return SHORT.get(name) or long.get(name, name)


def elements(t: torch.Tensor, record: dict[str, Any]) -> dict[str, Any]:
    """What the border to Rust is told of a tensor's elements, dense and in C order."""
    if t.device.type != "cpu" or t.is_conj() or t.is_neg() or not t.is_contiguous():
        # Another recording under way does not see it.
        with _disable_current_modes():
            t = t.detach().resolve_conj().resolve_neg().cpu().contiguous()
    size = t.numel() * t.element_size()
    return {"dtype": record["dtype"], "shape": record["shape"], "address": t.data_ptr(), "bytes": size, "owner": t}


def writes(t: torch.Tensor) -> int:
    """PyTorch's own count of writes."""
    return 0 if t.is_inference() else t._version


def place(t: torch.Tensor) -> Place:
    """Where in its storage a tensor lies, and how its elements are to be read."""
    return t.storage_offset(), tuple(t.shape), tuple(t.stride()), t.dtype, t.is_conj(), t.is_neg()


class Memory:
    """A storage while it lives: which of its views, as they are now, are which values."""

    def __init__(self, number: int, storage: Any):
        self.number, self.alive, self.version = number, StorageWeakRef(storage), 0
        self.views: dict[Place, int] = {}
        # The value that what is written through views is put into, and its place.
        self.base: Optional[tuple[int, Place]] = None


def reach(key: Place) -> tuple[int, int]:
    """Where in its storage the first element of a tensor lies, and the last."""
    return key[0], key[0] + sum((n - 1) * s for n, s in zip(key[1], key[2]) if n)


def count(key: Place) -> int:
    """Elements of a tensor at a place."""
    return math.prod(key[1])


def dense(key: Place) -> bool:
    """Whether a view touches every element between its first and its last, each once."""
    expected = 1
    for stride, n in sorted((s, n) for s, n in zip(key[2], key[1]) if n != 1):
        if stride != expected:
            return False
        expected *= n
    return True


def window(t: torch.Tensor, base: Place) -> dict[str, Any]:
    """Where a tensor looks at a storage, and where the value lies that holds what it looks at, as settings of a node."""
    offset, shape, strides, *_ = base
    return {
        "offset": {"int": t.storage_offset()},
        "size": {"ints": list(t.shape)},
        "stride": {"ints": list(t.stride())},
        "base_offset": {"int": offset},
        "base_size": {"ints": list(shape)},
        "base_stride": {"ints": list(strides)},
    }
