#!/usr/bin/env python3
"""Times the comparing of tensors and of traces against what it is promised to hold.

usage: compare.py [--mib N] [--rounds N] [--only PART] [--package NAME]

Builds the program, the example `speed` and the Python package (into bench/.venv-compare, with torch and numpy), and
prints a table of what was promised, what was measured, and whether it was kept. PART is one of speed, peers, small,
views, traces, many. Everything is alternated and every figure is the median of its rounds, so that load falls on all
alike; what takes memory is touched before it is timed. `--package` names another package to install in place of this
folder, such as a wheel.
"""

import argparse
import json
import os
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from run import python

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PEERS = ["numpy", "torch==2.15.0"]
ROWS = []


def row(what, measured, promise, kept):
    ROWS.append((what, measured, promise, kept))
    print(f"{what:44} {measured:52} {promise:26} {'kept' if kept else 'BROKEN'}", flush=True)


def example(mib, part):
    """The lines of the example `speed`."""
    command = ["cargo", "run", "--release", "--quiet", "-p", "isotrace-compare", "--example", "speed", str(mib), part]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


def speed(args):
    for dtype in ("f32", "f64", "f16", "bf16"):
        (line,) = example(args.mib, dtype)
        share = float(re.search(r"([\d.]+) %", line)[1])
        row(f"{dtype}, {args.mib} MiB, share of a plain read", " ".join(line.split()[1:]), ">= 85 %", share >= 85)


def small(args):
    (line,) = example(args.mib, "small")
    ms = float(re.search(r"compare +([\d.]+) ms", line)[1])
    row("1,000 tensors of 64 KiB", f"{ms:.1f} ms", "< 60 ms", ms < 60)


def views(args):
    for line in example(args.mib, "views"):
        share = float(re.search(r"([\d.]+) %", line)[1])
        name = re.match(r"view +(\S+ .*?) +contiguous", line)[1]
        row(f"{' '.join(name.split())}, share of contiguous", f"{share:.0f} %", ">= 33 %", share >= 100 / 3)


def peers(args):
    """In one process, so that no start of one counts."""
    program = python(".venv-compare", PEERS)
    install = [program, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", args.package or str(ROOT)]
    subprocess.run(install, check=True)
    command = [program, str(HERE / "compare.py"), "--inside", "--mib", str(args.mib), "--rounds", str(args.rounds)]
    for line in subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines():
        dtype, peer = line.split()[:2]
        own, seconds, read = map(float, line.split()[2:])
        times, most, share = seconds / own, seconds / read, read / own
        least = 50 if peer == "torch" else 10
        what = f"{dtype}, {args.mib} MiB, against " + ("assert_close" if peer == "torch" else "numpy.allclose")
        told = f"{seconds:.2f} s against {own:.3f} s: {times:.0f} times (a plain read {most:.0f})"
        if times < least and share >= 0.85:
            told += f", at the memory's speed: {share:.0%} of the read"
        row(what, told, f">= {least} times or >= 85 %", times >= least or share >= 0.85)


def inside(args):
    """Runs in the environment of the peers."""
    import isotrace
    import numpy as np
    import torch

    def timed(job):
        start = time.perf_counter()
        assert job()
        return time.perf_counter() - start

    cores = os.cpu_count() or 1
    pool = ThreadPoolExecutor(cores)

    def plain(*arrays):
        """Reads the arrays on all cores, and does next to nothing with them."""
        pieces = [a.view(np.uint64)[at : at + (1 << 19)] for a in arrays for at in range(0, a.nbytes // 8, 1 << 19)]
        list(pool.map(lambda k: [np.maximum.reduce(p) for p in pieces[k::cores]], range(cores)))
        return True

    for dtype, apart in (("float32", 1e-7), ("float64", 1e-12), ("float16", 2e-4)):
        rng = np.random.default_rng(1)
        n = (args.mib << 20) // np.dtype(dtype).itemsize
        x, y = np.empty(n, dtype), np.empty(n, dtype)
        for at in range(0, n, 1 << 22):
            part = rng.standard_normal(min(1 << 22, n - at))
            x[at : at + len(part)] = part
            y[at : at + len(part)] = part * (1 + apart * rng.random(len(part)))
        tx, ty = torch.from_numpy(x), torch.from_numpy(y)
        like_numpy = {"rtol": 1e-3, "atol": 1e-5} if dtype == "float16" else {"rtol": 1e-5, "atol": 1e-8}
        jobs = {
            "read": lambda: plain(x, y),
            "own torch": lambda: isotrace.compare(x, y).close,
            "torch": lambda: torch.testing.assert_close(tx, ty) is None,
            "own numpy": lambda: isotrace.compare(x, y, like="numpy", **like_numpy).close,
            "numpy": lambda: np.allclose(x, y, **like_numpy),
        }
        rounds = [{name: timed(job) for name, job in jobs.items()} for _ in range(args.rounds + 1)][1:]
        median = {name: statistics.median(r[name] for r in rounds) for name in jobs}
        for peer in ("torch", "numpy"):
            print(dtype, peer, median[f"own {peer}"], median[peer], median["read"])


def safetensors(path, tensors, fill):
    """A file of f32 tensors of one size: `tensors` of `fill(i)`, bytes."""
    size = len(fill(0))
    header = {
        f"layer.{i}": {"dtype": "F32", "shape": [size // 4], "data_offsets": [i * size, (i + 1) * size]}
        for i in range(tensors)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for i in range(tensors):
            file.write(fill(i))


def traces(args, folder, tensors, size):
    """Two traces whose tensors differ by rounding."""
    import array
    import random

    random.seed(tensors)
    base = [array.array("f", (random.gauss(0, 1) for _ in range(min(size, 1 << 20) // 4))) for _ in range(2)]
    near = [array.array("f", (v * (1 + 1e-7) for v in values)) for values in base]
    out = []
    for name, values in (("x", base), ("y", near)):
        whole = [v.tobytes() * (size // (len(v) * 4)) for v in values]
        file, trace = folder / f"{name}.safetensors", folder / f"{name}.trace"
        safetensors(file, tensors, lambda i: whole[i % 2])
        subprocess.run([args.binary, "convert", file, trace], check=True, stdout=subprocess.DEVNULL)
        file.unlink()
        out.append(trace)
    return out


def measured(command):
    """Seconds and peak memory in MB of a process that must succeed."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{command}: status {process.returncode}"
    return seconds, usage.ru_maxrss / 1e3


def read(path, buffer):
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def cached(folders):
    """Seconds to read every file of the folders out of the disk cache, on all cores."""
    files = sorted((p for f in folders for p in Path(f).iterdir()), key=lambda p: -p.stat().st_size)
    cores = os.cpu_count() or 1
    buffers = [bytearray(1 << 20) for _ in range(cores)]
    start = time.perf_counter()
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(lambda k: [read(f, buffers[k]) for f in files[k::cores]], range(cores)))
    return time.perf_counter() - start


def whole(args):
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        x, y = traces(args, Path(place), 100, 16 << 20)
        cached([x, y])
        rounds = [(cached([x, y]), *measured([args.binary, "compare", x, y])) for _ in range(args.rounds + 1)][1:]
        plain, seconds = (statistics.median(r[k] for r in rounds) for k in (0, 1))
        share = statistics.median(r[0] / r[1] for r in rounds)
        peak = max(r[2] for r in rounds)
        row("100 tensors of 16 MiB, share of cached reads", f"{seconds:.3f} s, read {plain:.3f} s: {share:.0%}", ">= 70 %", share >= 0.7)
        row("the same, peak memory", f"{peak:.0f} MB", "< 200 MB", peak < 200)


def many(args):
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        x, y = traces(args, Path(place), 20000, 1024)
        seconds = statistics.median(measured([args.binary, "compare", x, y])[0] for _ in range(args.rounds))
        row("20,000 tensors of 1 KiB in two traces", f"{seconds:.2f} s", "< 2 s", seconds < 2)


PARTS = {"speed": speed, "small": small, "views": views, "peers": peers, "traces": whole, "many": many}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--mib", type=int, default=512, help="a side, of large tensors")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--only", choices=PARTS, action="append")
    ap.add_argument("--package", help="what to install for Python in place of this folder")
    ap.add_argument("--binary", help="a program in place of one built here")
    ap.add_argument("--folder", help="where traces of 3.4 GB are written for a moment")
    ap.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = ap.parse_args()
    if args.inside:
        return inside(args)
    wanted = args.only or list(PARTS)
    if args.binary is None:
        args.binary = str(ROOT / "target" / "release" / "isotrace")
        if {"traces", "many"} & {*wanted}:
            subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "isotrace-cli"], cwd=ROOT, check=True)
    for name in wanted:
        PARTS[name](args)
    return 0 if all(kept for *_, kept in ROWS) else 1


if __name__ == "__main__":
    sys.exit(main())
