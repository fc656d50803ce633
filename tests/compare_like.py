#!/usr/bin/env python3
"""`isotrace compare --like` against the tools themselves, on thousands of small tensors.

    compare_like.py path/to/isotrace [--tensors N] [--seed N]

Needs numpy, torch and polygraphy; what is missing is said and left out. Most elements lie within a few roundings of
the border between close and not close, the rest is NaN, infinities, zeros of both signs, denormal and huge numbers.
Every tensor on which the program and the tool disagree is printed; the exit status is 1 if there is one.
"""

import argparse
import importlib.util
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

FLOATS = ["float64", "float32", "float16"]
OTHERS = ["int8", "int16", "int32", "int64", "uint8", "bool"]
COMPLEX = ["complex64", "complex128"]
# None: the tool's own default.
TOLERANCES = [(None, None), (0.0, 0.0), (1e-3, 1e-5), (0.0, 1e-3), (1e-2, 0.0), (1e-5, 1e-8), (0.5, 2.0), (3e-6, 4e-9)]
SPECIALS = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-310, -1e-42, 6e-8, 65504.0, -3e38, 1e308]


def border(rng, rtol, atol, dtype):
    """Two arrays whose difference is about what the tolerance allows."""
    # The last is long enough for the loops of vectors.
    shape = [(), (1,), (7,), (3, 5), (0,), (2, 3, 4), (1500,)][rng.integers(7)]
    scale = 10.0 ** rng.integers(-6, 5)
    y = rng.normal(size=shape) * scale
    limit = atol + rtol * abs(y)
    near = 1 + rng.integers(-3, 4, size=shape) * 2.0 ** -rng.choice([3, 8, 10, 11, 23, 24, 50, 52])
    # Few tensors would pass if every element were at the border.
    share = rng.choice([0.0, 0.3, 0.9, 0.999])
    x = np.where(rng.random(shape) < 0.5, y + limit * near, y - limit * near * (rng.random(shape) < 1 - share))
    x = np.where(rng.random(shape) < share, y, x)
    if rng.random() < 0.3 and y.size:
        x, y = np.array(x), np.array(y)
        for array in (x, y):
            array.flat[rng.integers(y.size)] = rng.choice(SPECIALS)
        if rng.random() < 0.5:
            at = rng.integers(y.size)
            x.flat[at] = y.flat[at] = rng.choice(SPECIALS)
    with np.errstate(all="ignore"):
        return np.asarray(x).astype(dtype), np.asarray(y).astype(dtype)


def whole(rng, dtype):
    """Two arrays of integers or truth values."""
    shape = [(), (4,), (3, 5)][rng.integers(3)]
    if dtype == "bool":
        y = rng.random(shape) < 0.5
        return np.where(rng.random(shape) < 0.05, ~y, y), y
    info = np.iinfo(dtype)
    low, high = rng.choice([-100, info.min]), rng.choice([100, info.max])
    y = rng.integers(max(low, info.min), high, size=shape, endpoint=True, dtype=dtype)
    x = y.copy()
    if rng.random() < 0.7 and x.size:
        with np.errstate(all="ignore"):
            x = np.asarray(x + rng.integers(-2, 3, size=shape).astype(dtype)).astype(dtype)
    return x, y


def tolerance(dtype, rtol):
    """A tolerance to make numbers for where the tool has its own."""
    return {"float16": 1e-3, "float64": 1e-7}.get(dtype, 1.3e-6) if rtol is None else rtol


def cases(rng, count, rtol, atol):
    """Pairs of tensors of one type, some of two types or shapes."""
    out = []
    for i in range(count):
        kind = rng.choice(FLOATS + OTHERS + COMPLEX, p=[0.22] * 3 + [0.04] * 6 + [0.05] * 2)
        if kind in OTHERS:
            x, y = whole(rng, kind)
        elif kind in COMPLEX:
            real = "float32" if kind == "complex64" else "float64"
            xr, yr = border(rng, tolerance(kind, rtol), atol or 1e-5, real)
            turned = np.exp(1j * rng.choice([0.0, rng.uniform(0, 2 * np.pi)]))
            with np.errstate(all="ignore"):
                x, y = np.asarray(xr * turned).astype(kind), np.asarray(yr * turned).astype(kind)
        else:
            x, y = border(rng, tolerance(kind, rtol), 1e-5 if atol is None else atol, kind)
        if rng.random() < 0.05 and kind in FLOATS:
            with np.errstate(all="ignore"):
                x = x.astype(rng.choice(FLOATS))
        if rng.random() < 0.05 and y.ndim:
            x = x[:1] if rng.random() < 0.5 else x.reshape((1,) + x.shape)
        out.append((f"{i}.{kind}", np.asarray(x), np.asarray(y)))
    return out


def by_numpy(x, y, rtol, atol):
    given = {k: v for k, v in (("rtol", rtol), ("atol", atol)) if v is not None}
    try:
        with np.errstate(all="ignore"):
            return bool(np.allclose(x, y, **given))
    except ValueError:
        return False  # shapes


def by_torch(x, y, rtol, atol):
    import torch

    x, y = (v if isinstance(v, torch.Tensor) else torch.from_numpy(np.array(v)) for v in (x, y))
    try:
        torch.testing.assert_close(x, y, rtol=rtol, atol=atol)
        return True
    except AssertionError:
        return False


def by_polygraphy(x, y, rtol, atol):
    from polygraphy.comparator import CompareFunc, IterationResult

    given = {k: v for k, v in (("rtol", rtol), ("atol", atol)) if v is not None}
    run = [IterationResult({"v": v}) for v in (x, y)]
    with np.errstate(all="ignore"):
        return bool(CompareFunc.simple(**given)(*run)["v"])


def halves(rng, count, rtol, atol):
    """Pairs in bfloat16, which NumPy does not have."""
    import torch

    out = []
    for i in range(count):
        x, y = border(rng, 1.6e-2 if rtol is None else rtol, 1e-5 if atol is None else atol, "float32")
        out.append((f"{i}.bfloat16", torch.from_numpy(x.copy()).bfloat16(), torch.from_numpy(y.copy()).bfloat16()))
    return out


def safetensors(path, tensors):
    """A .safetensors file of bfloat16 tensors."""
    import torch

    head, blob = {}, b""
    for name, value in tensors:
        raw = value.contiguous().view(torch.int16).numpy().tobytes() if value.numel() else b""
        head[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": [len(blob), len(blob) + len(raw)]}
        blob += raw
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + blob)


def told(isotrace, folder, suffix, tool, rtol, atol):
    """What the program says of each pair."""
    given = [f"--{k}={v}" for k, v in (("rtol", rtol), ("atol", atol)) if v is not None]
    command = [isotrace, "compare", f"x{suffix}", f"y{suffix}", "--like", tool, "--json", "report.json", *given]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode not in (0, 1, 3):
        sys.exit(f"{' '.join(command)}: status {done.returncode}: {done.stderr}")
    report = json.loads((folder / "report.json").read_text())
    return {t["x"]: t for t in report["tensors"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("isotrace")
    parser.add_argument("--tensors", type=int, default=400, help="of each tool and tolerance")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tools", default="numpy,torch,polygraphy")
    args = parser.parse_args()
    isotrace = os.path.abspath(args.isotrace)
    tools = {}
    for tool, judge in (("numpy", by_numpy), ("torch", by_torch), ("polygraphy", by_polygraphy)):
        if tool not in args.tools.split(","):
            continue
        if importlib.util.find_spec(tool):
            tools[tool] = judge
        else:
            print(f"left out: {tool} is not installed")
    rng = np.random.default_rng(args.seed)
    judged = close = wrong = 0
    for (tool, judge), (rtol, atol) in itertools.product(tools.items(), TOLERANCES):
        sets = [(".npz", cases(rng, args.tensors, rtol, atol))]
        if tool == "torch":
            sets.append((".safetensors", halves(rng, args.tensors // 4, rtol, atol)))
        for suffix, pairs in sets:
            if tool == "polygraphy":
                # It refuses other shapes and types of both sides in ways of its own, and has no complex numbers.
                pairs = [p for p in pairs if p[1].shape == p[2].shape and p[1].dtype == p[2].dtype and p[1].dtype.kind != "c" and p[1].size]
            with tempfile.TemporaryDirectory() as where:
                folder = pathlib.Path(where)
                for side in (0, 1):
                    named = [(name, (x, y)[side]) for name, x, y in pairs]
                    if suffix == ".npz":
                        np.savez(folder / f"{'xy'[side]}.npz", **dict(named))
                    else:
                        safetensors(folder / f"{'xy'[side]}{suffix}", named)
                found = told(isotrace, folder, suffix, tool, rtol, atol)
            for name, x, y in pairs:
                expected = judge(x, y, rtol, atol)
                got = found[name]["status"] in ("identical", "within")
                judged += 1
                close += expected
                if got != expected:
                    wrong += 1
                    if wrong <= 20:
                        print(f"{tool} rtol={rtol} atol={atol} {name}: {tool} says {'close' if expected else 'not close'}")
                        print(f"  x {x!r}\n  y {y!r}\n  {found[name]['status']} {found[name].get('reason')} beyond {found[name].get('beyond')}")
    print(f"{judged} tensors judged by {', '.join(tools)}: {close} close, {judged - close} not; {wrong} judged otherwise here")
    return 1 if wrong or not judged else 0


if __name__ == "__main__":
    sys.exit(main())
