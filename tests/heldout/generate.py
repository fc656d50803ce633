#!/usr/bin/env python3
"""Writes a held-out zoo: other networks, rewrites and faults than the given one, in the same layout.

usage: generate.py OUT [--set first|second|third|fourth|fifth|sixth] [--only NETWORK ...] [--faults N] [--rewrites N] [--two N]

OUT gets models/<network>/ and cases/<case>/, so that the given zoo's score.py runs on OUT/cases. The second set has networks and kinds of
its own and one case of each of the first's kinds, the third likewise of both others', the fourth nothing of others, the fifth networks of others alone, the sixth some of both. Networks already exported are not exported again; cases are seeded by their names and
always written anew. A folder is for one set.
"""
import argparse
import dataclasses
import pathlib
import time

import torch

from heldout.cases import Network, make
from heldout.export import NETWORKS, build
from heldout.populations import POPULATIONS


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--set", choices=POPULATIONS, default="first", help="which networks and kinds (default first)")
    p.add_argument("--only", nargs="*", choices=NETWORKS, help="the kinds of fault and rewrite are then spread over these networks alone")
    p.add_argument("--faults", type=int, help="cases per kind of fault of the set's own (default: the set's)")
    p.add_argument("--rewrites", type=int, help="cases per harmless rewrite of the set's own")
    p.add_argument("--two", type=int, help="cases with two faults, per network")
    z = p.parse_args()
    torch.set_num_threads(1)
    population = POPULATIONS[z.set]
    population = dataclasses.replace(population, **{k: v for k in ("faults", "rewrites", "two") if (v := getattr(z, k)) is not None})
    networks = []
    for name in z.only or population.networks:
        start = time.perf_counter()
        models, inputs = build(name, z.out)
        networks.append(Network(name, models, inputs, z.out))
        print(f"{name}: {', '.join(models)}, {time.perf_counter() - start:.0f} s", flush=True)
    make(networks, population)
    print(f"{len(list(z.out.glob('cases/*/truth.json')))} cases")


if __name__ == "__main__":
    main()
