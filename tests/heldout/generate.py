#!/usr/bin/env python3
"""Writes a held-out zoo: other networks, rewrites and faults than the given one, in the same layout.

usage: generate.py OUT [--only NETWORK ...] [--faults N] [--rewrites N] [--two N]

OUT gets models/<network>/ and cases/<case>/, so that the given zoo's score.py runs on OUT/cases. Networks already exported are not
exported again; cases are seeded by their names and always written anew, which takes half a minute.
"""
import argparse
import pathlib
import time

import torch

from heldout.cases import Network, make
from heldout.export import NETWORKS, build


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--only", nargs="*", choices=NETWORKS, default=NETWORKS, help="the kinds of fault and rewrite are then spread over these networks alone")
    p.add_argument("--faults", type=int, default=3, help="cases per kind of fault (default 3)")
    p.add_argument("--rewrites", type=int, default=2, help="cases per harmless rewrite (default 2)")
    p.add_argument("--two", type=int, default=1, help="cases with two faults, per network (default 1)")
    z = p.parse_args()
    torch.set_num_threads(1)
    networks = []
    for name in z.only:
        start = time.perf_counter()
        models, inputs = build(name, z.out)
        networks.append(Network(name, models, inputs, z.out))
        print(f"{name}: {', '.join(models)}, {time.perf_counter() - start:.0f} s", flush=True)
    make(networks, z.faults, z.rewrites, z.two)
    print(f"{len(list(z.out.glob('cases/*/truth.json')))} cases")


if __name__ == "__main__":
    main()
