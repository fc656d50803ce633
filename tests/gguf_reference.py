#!/usr/bin/env python3
"""Holds the block types of GGUF against the package gguf: what it writes is read to the bits that it reads itself.

usage: gguf_reference.py ISOTRACE [--rows N]

For every type that the package dequantises, a tensor of random numbers goes through its quantisation where it has one,
and through random blocks whose scales are numbers where it has none; both kinds are written by its writer, converted to
.npz by the program ISOTRACE, and compared bit for bit.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
from gguf import quants

# Kept as they are, not widened: nothing that the package dequantises.
PLAIN = {"F32", "F16", "BF16"}


def random_blocks(kind, rows, blocks, rng):
    """Blocks of random bytes that the package reads as numbers: a scale of NaN or infinity is drawn again."""
    size = gguf.GGML_QUANT_SIZES[kind][1]
    data = rng.integers(0, 256, (rows * blocks, size), dtype=np.uint8)
    for _ in range(100):
        bad = ~np.isfinite(quants.dequantize(data, kind)).all(axis=-1)
        if not bad.any():
            return data.reshape(rows, blocks * size)
        data[bad] = rng.integers(0, 256, (int(bad.sum()), size), dtype=np.uint8)
    raise SystemExit(f"{kind.name}: no blocks of numbers in a hundred draws")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("isotrace")
    ap.add_argument("--rows", type=int, default=16)
    args = ap.parse_args()
    rng = np.random.default_rng(1)
    # Random scales overflow in what is drawn again.
    np.seterr(all="ignore")
    tensors, expected, quantised = {}, {}, 0
    for kind in gguf.GGMLQuantizationType:
        if kind not in quants._type_traits or kind.name in PLAIN:
            continue
        values = (rng.standard_normal((args.rows, 1024)) * 10 ** rng.uniform(-4, 2, (args.rows, 1))).astype(np.float32)
        kinds = {f"{kind.name}.random": random_blocks(kind, args.rows, 1024 // gguf.GGML_QUANT_SIZES[kind][0], rng)}
        try:
            kinds[f"{kind.name}.quantised"] = quants.quantize(values, kind)
            quantised += 1
        except NotImplementedError:
            pass
        for name, data in kinds.items():
            tensors[name] = (kind, data)
            expected[name] = quants.dequantize(data, kind)
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder, "all.gguf"), Path(folder, "all.npz")
        writer = gguf.GGUFWriter(file, "test")
        for name, (kind, data) in tensors.items():
            writer.add_tensor(name, data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        subprocess.run([args.isotrace, "convert", file, out], check=True, stdout=subprocess.DEVNULL)
        read = dict(np.load(out))
    wrong = []
    if missing := sorted(expected.keys() - read.keys()):
        wrong.append(f"not read: {missing}")
    for name in expected.keys() & read.keys():
        ours, theirs = read[name], expected[name].astype(np.float32)
        if ours.shape != theirs.shape:
            wrong.append(f"{name}: shape {ours.shape}, the package reads {theirs.shape}")
        elif different := int((ours.view(np.uint32) != theirs.view(np.uint32)).sum()):
            at = np.flatnonzero(ours.view(np.uint32) != theirs.view(np.uint32))[0]
            wrong.append(f"{name}: {different} of {ours.size} differ, first {ours.flat[at]!r} against {theirs.flat[at]!r}")
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"gguf: {len(expected)} tensors, {quantised} types quantised by the package, {len(wrong)} wrong")
    return 1 if wrong or quantised < 6 else 0


if __name__ == "__main__":
    sys.exit(main())
