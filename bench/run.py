#!/usr/bin/env python3
"""Times `isotrace run` and `isotrace diff` against what people use today. Needs nothing beyond Python's own library.

usage: run.py [--binary PATH] [--zoo FOLDER] [--rounds N] [--json FILE] [--only NAME]

Whole process against whole process, in alternation (so that load of the machine falls on all alike), medians of
`--rounds` rounds after one to warm up. The peers are installed into bench/.venv at the first call.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = ["numpy", "onnx==1.23.2", "onnxruntime==1.31.1", "onnx-array-api==0.3.3"]
# The promises: isotrace's seconds as a share of the peer's.
DIFF_SHARE, RUN_SHARE = 1 / 10, 2


def python(folder=".venv", packages=PEERS):
    """The interpreter of a virtual environment that holds the packages of the peers."""
    place = HERE / folder
    program = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (place / "ready").exists():
        venv.create(place, with_pip=True, clear=True)
        subprocess.run([program, "-m", "pip", "install", "--quiet", *packages], check=True)
        (place / "ready").touch()
    return str(program)


def call(command, allowed):
    """Seconds of one process and what it printed; None when it failed."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode not in allowed:
        lines = done.stderr.strip().splitlines() or ["no message"]
        print(f"  failed: {' '.join(map(str, command[:3]))} ...: {lines[-1][:150]}", file=sys.stderr)
        return None
    return seconds, done.stdout


def alternate(jobs, rounds):
    """Medians of the seconds of each job, and its last output. A job that fails once is left out."""
    seconds, last = {name: [] for name in jobs}, {}
    for turn in range(rounds + 1):
        for name in list(seconds):
            command, allowed = jobs[name]
            result = call(command, allowed)
            if result is None:
                del seconds[name]
            else:
                last[name] = result[1]
                if turn:
                    seconds[name].append(result[0])
    return {name: statistics.median(s) for name, s in seconds.items()}, last


def places(zoo, peer):
    """Name, reference, candidate and inputs of each pair."""
    models = HERE.parent / "target" / "bench"
    listed = subprocess.run([peer, HERE / "models.py", models], check=True, capture_output=True, text=True).stdout
    for folder in map(Path, listed.split()):
        yield folder.name, folder / "a.onnx", folder / "b.onnx", folder / "inputs.npz"
    for folder in sorted(Path(zoo).glob("models/*")) if zoo else []:
        yield f"zoo {folder.name}", folder / "script.onnx", folder / "dynamo.onnx", folder / "inputs.npz"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--binary", default=HERE.parent / "target" / "release" / "isotrace")
    ap.add_argument("--zoo", help="a folder with models/NAME/{script,dynamo}.onnx and inputs.npz")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--json", help="also write the figures to this file")
    ap.add_argument("--only", help="only pairs whose name holds this")
    args = ap.parse_args()
    peer, tool = python(), str(Path(args.binary).resolve())
    runs, diffs, figures = [], [], {}
    for name, a, b, inputs in places(args.zoo, peer):
        if args.only and args.only not in name:
            continue
        job = [peer, HERE / "peer.py"]
        median, last = alternate(
            {
                "run": ([tool, "run", a, "--inputs", inputs, "--outputs", "all"], {0}),
                "ort": ([*job, "ort", a, inputs], {0}),
                "ort_10": ([*job, "ort", a, inputs, "10"], {0}),
                "reference": ([*job, "reference", a, inputs], {0}),
                "diff": ([tool, "diff", a, b, "--inputs", inputs], {0, 1, 3}),
                "compare": ([*job, "compare", a, b, inputs], {0}),
            },
            args.rounds,
        )
        if "ort_10" in last:
            median["ort_inside"] = float(last["ort_10"])
        figures[name] = median
        runs.append((name, median, ["run", "ort", "ort_inside", "reference"], RUN_SHARE))
        diffs.append((name, median, ["diff", "compare"], DIFF_SHARE))
    table("isotrace run --outputs all (f32)", "ORT: ONNX Runtime, all values marked", runs)
    table("isotrace diff", "compare: onnx-array-api compare_onnx_execution", diffs)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1) + "\n")


LABELS = {"ort": "ORT", "ort_inside": "ORT in process", "reference": "reference", "compare": "compare"}


def table(title, note, rows):
    """Seconds, then isotrace's as a share of each peer's; the promise is about the first peer."""
    if not rows:
        return
    own, *others = rows[0][2]
    print(f"\n{title}; {note}; seconds of whole processes unless said otherwise\n")
    print("| model | isotrace |" + "".join(f" {LABELS[o]} | share |" for o in others) + " promise |")
    print("|---|---|" + "---|---|" * len(others) + "---|")
    for name, median, _, promise in rows:
        mine = median.get(own)
        cells = [f"{mine:.3f}" if mine else "failed"]
        for other in others:
            peer = median.get(other)
            cells += [f"{peer:.3f}" if peer else "failed", f"{mine / peer:.2f}" if mine and peer else "-"]
        first = median.get(others[0])
        kept = "-" if not (mine and first) else f"{'kept' if mine / first <= promise else 'BROKEN'} (at most {promise:g})"
        print(f"| {name} | " + " | ".join(cells) + f" | {kept} |")


if __name__ == "__main__":
    main()
