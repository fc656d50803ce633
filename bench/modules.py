"""How far apart the same values of recordings of modules are, and values behind a planted fault: what the thresholds of
crates/cli/src/modules/mod.rs were set by.

BERT, Llama, ViT and ResNet of tests/python/models.py with random weights, in several sizes, plain and `sharp` (queries
and keys four times as large). One row for each pair of runs: the unit u of the coarser type, how many units apart the
farthest values are, the same at the final outputs, the same in multiples of the reference's own distance from float64
at that value, 16 units apart, and how many units apart is what a single module of torch.nn gives that was given the
same bits. Needs the installed package isotrace and PyTorch; `--compiled` needs a C++ compiler.

    python bench/modules.py [--compiled]
"""

import argparse
import itertools
import json
import pathlib
import sys
import tempfile

import isotrace
import isotrace.torch
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "python"))
import models  # noqa: E402

SIZES = {
    "bert": [{}, {"width": 128, "layers": 4, "inner": 512}, {"width": 192, "heads": 6, "layers": 12, "inner": 768}],
    "llama": [{}, {"width": 128, "layers": 4, "inner": 344}, {"width": 192, "heads": 6, "layers": 12, "inner": 512}],
    "vit": [{}, {"width": 128, "layers": 4, "inner": 512}, {"width": 192, "heads": 6, "layers": 12, "inner": 768}],
    "resnet": [{}, {"widths": (16, 32, 64)}, {"widths": (32, 64, 128, 256)}],
}
UNITS = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
FIRST = 16.0


def record(folder, network, size, sharp, *, dtype=torch.float32, threads=None, compiled=False, **settings):
    model = models.make(network, size=size, **settings)
    if sharp:
        models.sharpen(model)
    model.to(dtype)
    inputs = {k: t.to(dtype) if t.is_floating_point() else t for k, t in models.inputs(network).items()}
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    run = torch.compile(model) if compiled else model
    with torch.no_grad(), isotrace.torch.record(run, folder, level="modules"):
        run(**inputs)
    torch.set_num_threads(before)
    return folder


def apart(a, b):
    """Distances of values by their names, in the order in which they were computed, and the report."""
    report = isotrace.diff(a, b)
    pairs = [p for p in report.pairs if p.a and p.b and getattr(p, "role", None) != "input"]
    return {p.a: (p.rel_l2 or 0.0, getattr(p, "role", None) == "output") for p in pairs if "rel_l2" in p.__dict__}, report


def alone(folder, report):
    """How far apart is what single modules of torch.nn give that were given the same bits; None where there is none."""
    records = [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]
    names = {r["id"]: r["name"] for r in records if r["record"] == "value"}
    calls = [r for r in records if r["record"] == "call"]
    above = {c.get("parent") for c in calls}
    same = {p.a for p in report.pairs if p.a and p.b and p.status == "identical"}
    apart = {p.a: p.rel_l2 for p in report.pairs if p.a and p.b and p.__dict__.get("rel_l2") is not None}
    found = [apart[names[i]] for c in calls if c["id"] not in above and c["class"].startswith("torch.nn.modules.")
             if c["inputs"] and all(names[i] in same for i in c["inputs"])
             for i in c["outputs"] if names[i] in apart]  # fmt: skip
    return max(found, default=None)


def nearest(folder):
    """How near two different values of one run come to each other, where they have as many elements."""
    trace = isotrace.Trace(folder)
    values = [torch.from_numpy(trace[name].astype("float64")).flatten() for name in trace]
    values = [v for v in values if v.numel() > 1 and v.isfinite().all() and v.norm() > 0]
    best = 9.0
    for x, y in itertools.combinations(values, 2):
        if x.shape == y.shape and (x != y).any():
            best = min(best, float((x - y).norm() / x.norm()))
    return best


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--compiled", action="store_true")
    arguments.add_argument("--only", choices=SIZES, action="append")
    given = arguments.parse_args()
    root = pathlib.Path(tempfile.mkdtemp())
    count = itertools.count()
    print(f"{'network':7} {'run':24} {'u':>7} {'most, u':>9} {'final, u':>9} {'most, own':>9} {'alone, u':>9} {'verdict':12} first")
    for network in given.only or SIZES:
        for at, (size, sharp) in enumerate(itertools.product(SIZES[network], (False, True))):
            if sharp and network == "resnet":
                continue

            def make(**settings):
                return record(root / str(next(count)), network, size, sharp, **settings)

            base, exact = make(), make(dtype=torch.float64)
            own = {name: distance for name, (distance, _) in apart(exact, base)[0].items()}
            runs = [("float64", torch.float64, {}), ("bfloat16", torch.bfloat16, {}), ("float16", torch.float16, {}),
                    ("one thread", torch.float32, {"threads": 1})]  # fmt: skip
            if network != "resnet":
                runs.append(("attention in parts", torch.float32, {"fused": False}))
            if given.compiled and not sharp and at < 4:
                runs.append(("compiled", torch.float32, {"compiled": True}))
            for fault in (f for f in models.FAULTS if f.network == network):
                settings = dict(fault.settings)
                if fault.name == "scale":
                    settings["scale"] = 0.7 * (size.get("width", 32) // size.get("heads", 4)) ** -0.5
                runs.append((f"WRONG {fault.name}", torch.float32, settings))
                runs.append((f"WRONG {fault.name} bfloat16", torch.bfloat16, settings))
            name = f"{network} {size.get('layers') or len(size.get('widths', '12'))}{' sharp' if sharp else ''}"
            print(f"{name}: two different values are {nearest(base):.1%} apart at least")
            for tag, dtype, settings in runs:
                found, report = apart(base, exact if dtype is torch.float64 else make(dtype=dtype, **settings))
                u = max(UNITS[dtype], UNITS[torch.float32])
                most = max(d for d, _ in found.values()) / u
                final = max((d for d, output in found.values() if output), default=float("nan")) / u
                times = max((d - FIRST * u) / own[name] for name, (d, _) in found.items() if own.get(name))
                single = alone(base, report)
                single = float("nan") if single is None else single / u
                first = report.culprits[0].a.nodes[0] if report.culprits else ""
                print(f"{'':7} {tag:24} {u:7.0e} {most:9.3g} {final:9.3g} {times:9.3g} {single:9.3g} {report.verdict:12} {first}", flush=True)


if __name__ == "__main__":
    main()
