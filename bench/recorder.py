"""What recording PyTorch costs: a forward pass of BERT-base (random weights), plain and recorded in alternation.

Ratios of the best of several runs carry over from one machine to another, seconds do not. Needs the installed package
isotrace, PyTorch and transformers.

    python bench/recorder.py [--batch 4] [--length 128] [--rounds 5]
"""

import argparse
import os
import shutil
import tempfile
import time

import isotrace.torch
import torch
from transformers import BertConfig, BertModel

# Level, what is kept, whether parameters are among it, and how many times the plain run is promised at most.
RUNS = [
    ("operators", "data", True, 5.0),
    ("operators", "digest", True, None),
    ("modules", "data", True, None),
    ("modules", "data", False, None),
    ("modules", "digest", True, 1.3),
    ("modules", "digest", False, None),
]


def seconds(run):
    """Of the clock, and of all threads together."""
    clock, work = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - clock, time.process_time() - work


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--batch", type=int, default=4)
    arguments.add_argument("--length", type=int, default=128)
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    torch.manual_seed(0)
    model = BertModel(BertConfig()).eval()
    ids = torch.randint(0, 30000, (given.batch, given.length))
    folder = os.path.join(tempfile.mkdtemp(), "trace")

    def recorded(level, keeps, parameters):
        with isotrace.torch.record(model, folder, level=level, keeps=keeps, parameters=parameters):
            model(ids)

    # Each beside plain runs of its own: the best of more would be better by chance.
    plain, runs = ({run[:3]: [] for run in RUNS} for _ in range(2))
    sizes = {}
    with torch.no_grad():
        model(ids)
        for _ in range(given.rounds):
            for run, times in runs.items():
                plain[run].append(seconds(lambda: model(ids)))
                times.append(seconds(lambda: recorded(*run)))
                sizes[run] = sum(entry.stat().st_size for entry in os.scandir(folder))
                shutil.rmtree(folder)
    fastest = min(clock for times in plain.values() for clock, _ in times)
    print(f"plain forward, {given.batch} x {given.length}: {fastest:.3f} s")
    for *run, promised in RUNS:
        run = tuple(run)
        clock, work = (min(own) / min(beside) for own, beside in zip(zip(*runs[run]), zip(*plain[run])))
        level, keeps, parameters = run
        what = f"{level:9} {keeps:6} {'' if parameters else 'no parameters':13}"
        wanted = f"  (promised: {promised})" if promised else ""
        size = sizes[run] / 2**20
        print(f"{what}  {clock:5.2f} times the clock, {work:5.2f} the work, {size:7.1f} MiB{wanted}")


if __name__ == "__main__":
    main()
