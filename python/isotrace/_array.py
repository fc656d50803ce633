"""Arrays across the border to Rust, without copies where they lie in C order.

isotrace's element types have short names (f32, bf16, i64); NumPy has no name for some of them, and those travel as
the unsigned integers of their width.
"""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from . import _isotrace

NUMPY: dict[str, Any] = {
    "f64": np.float64, "f32": np.float32, "f16": np.float16, "i64": np.int64, "i32": np.int32, "i16": np.int16,
    "i8": np.int8, "u64": np.uint64, "u32": np.uint32, "u16": np.uint16, "u8": np.uint8, "bool": np.bool_,
    "c64": np.complex64, "c128": np.complex128,
}  # fmt: skip
SHORT = {np.dtype(kind).name: name for name, kind in NUMPY.items()}
# Names that frameworks and ml_dtypes give to what NumPy does not know, and how wide it is.
EXTRA = {
    "bfloat16": ("bf16", np.uint16), "float8_e4m3fn": ("f8e4m3fn", np.uint8), "float8_e5m2": ("f8e5m2", np.uint8),
    "float8_e4m3fnuz": ("f8e4m3fnuz", np.uint8), "float8_e5m2fnuz": ("f8e5m2fnuz", np.uint8),
}  # fmt: skip


def is_torch(x: Any) -> bool:
    return type(x).__module__.split(".")[0] == "torch" and hasattr(x, "detach")


def plain(x: Any) -> tuple[str, np.ndarray]:
    """The short name of an array's element type, and its elements as an array that NumPy can hold."""
    if is_torch(x):
        import torch

        x = x.detach()
        if x.is_conj() or x.is_neg():
            x = x.resolve_conj().resolve_neg()
        x, name = x.cpu(), str(x.dtype).removeprefix("torch.")
        if name in EXTRA:
            short, width = EXTRA[name]
            x = x.contiguous().view(torch.int16 if width is np.uint16 else torch.uint8)
            return short, x.numpy().view(width)
        return SHORT[np.dtype(x.numpy().dtype).name], x.numpy()
    if not isinstance(x, np.ndarray) and hasattr(x, "__dlpack__"):
        x = np.from_dlpack(x)
    x = np.asarray(x)
    name = x.dtype.name
    if name in EXTRA:
        short, width = EXTRA[name]
        return short, x.view(width)
    if name not in SHORT:
        raise TypeError(f"an array of {x.dtype} cannot be compared; expected one of {', '.join(sorted(SHORT))}")
    return SHORT[name], x.astype(x.dtype.newbyteorder("="), copy=False)


def border(x: Any) -> dict[str, Any]:
    """What Rust is told of an array: where its elements are, and who owns them."""
    name, array = plain(x)
    shape = array.shape
    array = np.ascontiguousarray(array)
    return {
        "dtype": name,
        "shape": list(shape),
        "address": array.ctypes.data,
        "bytes": array.nbytes,
        "owner": array,
    }


def array(buffer: _isotrace.Buffer) -> np.ndarray:
    """A tensor of isotrace's as a NumPy array, in place. bf16 and f8 come as ml_dtypes has them, else widened."""
    strings = buffer.strings()
    if strings is not None:
        return np.array(strings, dtype=object).reshape(buffer.shape)
    raw: np.ndarray = np.asarray(buffer)
    flat = _elements(raw, buffer.dtype)
    if flat is None:
        # Types that NumPy has no width for: the bytes of each element, along one more axis.
        return raw.reshape(buffer.shape + [-1]) if raw.size else raw.reshape(buffer.shape)
    return flat.reshape(buffer.shape)


def _elements(raw: np.ndarray, name: str) -> Optional[np.ndarray]:
    if name in NUMPY:
        known: np.ndarray = raw.view(NUMPY[name])
        return known
    for long, (short, width) in EXTRA.items():
        if short == name:
            try:
                import ml_dtypes

                narrow: np.ndarray = raw.view(getattr(ml_dtypes, long))
                return narrow
            except ImportError:
                return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32) if name == "bf16" else raw.view(width)
    return None
