#!/usr/bin/env python3
"""How much of the rounding budget harmless pairs use: the tighter the budget, the fewer faults hide in it.

usage: shares.py --zoo FOLDER [--binary PATH] [--output FILE]

Runs `isotrace diff` over the pairs of FOLDER/cases that are known to be harmless, and writes the largest share
the largest share of an allowance among a case's pairs of values, by model and by route, as a Markdown table.
"""

import argparse
import collections
import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
Use = collections.namedtuple("Use", "share value case")


def shares(report):
    """Shares of the pairs that have a budget, with the value's name."""
    for pair in report["pairs"]:
        budget = pair.get("budget") or {}
        share = budget.get("share")
        if not budget.get("allowed") or share is None:
            continue
        if math.isfinite(share):
            yield share, pair["a"] or pair["b"]


def route(truth):
    """What was done to the model, without which exporter's file it was done to."""
    return truth["mutation"]


def collect(binary, cases):
    """By (model, route): the uses of every budget, and how many cases were not judged harmless."""
    uses, wrong = collections.defaultdict(list), collections.Counter()
    for path in sorted(cases.glob("*/truth.json")):
        truth = json.loads(path.read_text())
        if truth["kind"] != "benign":
            continue
        folder = path.parent
        key = folder.name.split("-")[0], route(truth)
        with tempfile.TemporaryDirectory() as place:
            out = Path(place) / "report.json"
            command = [binary, "diff", folder / truth["a"], folder / truth["b"], "--inputs", folder / truth["inputs"]]
            done = subprocess.run([*command, "--json", out], capture_output=True, text=True)
            if not out.exists():
                print(f"{folder.name}: no report: {done.stderr.strip()[:200]}", file=sys.stderr)
                wrong[key] += 1
                continue
            report = json.loads(out.read_text())
        wrong[key] += report["verdict"] not in ("identical", "equivalent")
        uses[key] += [Use(share, value, folder.name) for share, value in shares(report)]
    return uses, wrong


def percent(share):
    return f"{share:.1%}" if share < 10 else f"{share:.0f} times"


def rows(grouped):
    for name, (uses, wrong) in sorted(grouped.items()):
        if not uses:
            yield f"| {name} | 0 | - | - | - | {wrong} |"
            continue
        most, ordered = max(uses), sorted(u.share for u in uses)
        ninth = ordered[int(0.99 * (len(ordered) - 1))]
        where = f"`{most.value}` in {most.case}"
        median = statistics.median(ordered)
        yield f"| {name} | {len(uses)} | {percent(median)} | {percent(ninth)} | {percent(most.share)}, {where} | {wrong} |"


def group(uses, wrong, name):
    found = {}
    for key in uses.keys() | wrong.keys():
        all_uses, all_wrong = found.get(name(key), ([], 0))
        found[name(key)] = (all_uses + uses[key], all_wrong + wrong[key])
    return found


def page(uses, wrong):
    yield "# How much of the budget harmless pairs use"
    yield ""
    yield "Made by `bench/shares.py` from the reports of the zoo's harmless pairs. A share is the largest part of its"
    yield "allowance that an element's difference takes (`budget.share` of the report), B computed in declared precision from"
    yield "A's own values; pairs without a budget (copies, integers, the same bits) do not count. Beyond 100 % a pair would be"
    yield "a culprit. The last column counts cases that were not judged identical or equivalent."
    for title, name in (
        ("model", lambda key: key[0]),
        ("route", lambda key: key[1]),
        ("model and route", lambda key: f"{key[0]}, {key[1]}"),
    ):
        yield ""
        yield f"| {title} | values | median share | 99th percentile | largest share | false alarms |"
        yield "|---|---|---|---|---|---|"
        yield from rows(group(uses, wrong, name))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--zoo", type=Path, required=True)
    ap.add_argument("--binary", default=HERE.parent / "target" / "release" / "isotrace")
    ap.add_argument("--output", type=Path, default=HERE.parent / "docs" / "budget-shares.md")
    args = ap.parse_args()
    binary = str(Path(args.binary).resolve())
    text = "\n".join(page(*collect(binary, args.zoo / "cases"))) + "\n"
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
