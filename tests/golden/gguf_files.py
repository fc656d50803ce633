"""Writes GGUF files that the tests of crates/trace read, with what the package gguf makes of them, and the codebooks.

    python tests/golden/gguf_files.py crates/trace/tests/golden [BLOCKS]
    python tests/golden/gguf_files.py --codebooks crates/trace/src/gguf/codebooks.bin

needs gguf and numpy. The files are committed, with two blocks of each type; a larger number of blocks is for a test by
hand (ISOTRACE_GGUF in crates/trace/tests/gguf.rs).
"""

import pathlib
import sys

import gguf
import numpy
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type

PLAIN = {Type.F32: "f4", Type.F16: "f2", Type.F64: "f8", Type.I8: "i1", Type.I16: "i2", Type.I32: "i4", Type.I64: "i8"}
# Those of which the package knows the size but not the meaning.
UNCHECKED = {Type.Q8_1, Type.Q8_K, Type.Q1_0}


def blocks(kind, count, random):
    """Blocks of random bytes: any scales and signs, NaN and infinities among them."""
    _, size = GGML_QUANT_SIZES[kind]
    data = random.integers(0, 256, (count, size), dtype=numpy.uint8)
    # The first of two has moderate scales, wherever they may be: no exponent of ones.
    data[::2] &= 0x5F if kind not in (Type.MXFP4,) else 0xFF
    return data.reshape(1, -1)


def files(folder, count):
    random = numpy.random.default_rng(7)
    writer = gguf.GGUFWriter(folder / "types.gguf", "test")
    writer.add_description("every type")
    writer.add_array("some.list", ["a", "bc"])
    writer.add_array("some.numbers", [1, 2, 3])
    expected = {}
    for kind in Type:
        name = f"t.{kind.name.lower()}"
        if kind in PLAIN:
            data = (numpy.arange(6) - 2).astype(PLAIN[kind]).reshape(2, 3)
            writer.add_tensor(name, data)
            expected[name] = data
        elif kind not in UNCHECKED:
            data = blocks(kind, count, random)
            writer.add_tensor(name, data, raw_dtype=kind)
            with numpy.errstate(all="ignore"):
                values = quants.dequantize(data, kind)
            expected[name] = values.astype("f4") if kind != Type.BF16 else values
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    numpy.savez_compressed(folder / "types.gguf.expected.npz", **expected)


def pack(places, bits):
    """Numbers of so many bits, the first in the lowest."""
    per = 8 // bits
    shifts = numpy.arange(per, dtype=numpy.uint8) * bits
    return (places.reshape(-1, per).astype(numpy.uint8) << shifts).sum(axis=1).astype(numpy.uint8).tobytes()


def codebooks(path):
    out = b""
    for kind, bits in [("IQ2_XXS", 2), ("IQ2_XS", 2), ("IQ2_S", 2), ("IQ1_S", 2), ("IQ3_XXS", 4), ("IQ3_S", 4)]:
        table = getattr(quants, kind)
        table.init_grid()
        out += pack(numpy.searchsorted(numpy.array(table.grid_map), table.grid.reshape(-1)), bits)
    pathlib.Path(path).write_bytes(out)


if sys.argv[1] == "--codebooks":
    codebooks(sys.argv[2])
else:
    files(pathlib.Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2)
