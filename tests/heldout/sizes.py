#!/usr/bin/env python3
"""Networks of real size as harmless rewrites: both exporters of PyTorch, and ONNX Runtime's optimiser on each.

usage: sizes.py BINARY [--keep FOLDER] [NAME ...]

Stock networks of torchvision, timm and transformers, with random weights and norms off their defaults, each exported
twice (dynamo, script), each export optimised twice (extended, all; the latter in blocks of channels). Four pairs of a
network are held against each other; all compute the same, so a verdict other than identical or equivalent is a false
alarm, and its files are kept where a folder is given. Seconds are those of whole processes. Without names every network
is taken: two hours on two cores, and some GB at a time in the folder for temporary files.

The small networks of the other sets have widths of whole blocks and few values that resemble each other; what comes of
18 or 440 channels, and of streams that hardly change from layer to layer, shows here.
"""
import argparse
import contextlib
import json
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import onnxruntime
import torch

import stock

LEVELS = {
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
PAIRS = [("dynamo", "script"), ("dynamo", "dynamo_all"), ("script", "script_extended"), ("dynamo_extended", "script_all")]


def files(name, folder):
    """The exports of a network and what the optimiser makes of them, those that come about."""
    torch.manual_seed(0)
    model, args = stock.network(name)
    stock.spread(model.eval())
    names = [f"input_{i}" for i in range(len(args))]
    exporters = {
        "dynamo": dict(dynamo=True, verbose=False, external_data=False),
        "script": dict(dynamo=False, opset_version=17),
    }
    made = {}
    for exporter, settings in exporters.items():
        path = folder / f"{exporter}.onnx"
        try:
            with torch.no_grad(), contextlib.redirect_stdout(sys.stderr):
                torch.onnx.export(model, args, path, input_names=names, **settings)
        except Exception as error:  # whatever an exporter fails with
            print(f"{name:34} {exporter}: not exported: {str(error).splitlines()[0][:80]}")
            continue
        made[exporter] = path
        for level, setting in LEVELS.items():
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = setting
            options.log_severity_level = 4
            optimised = folder / f"{exporter}_{level}.onnx"
            options.optimized_model_filepath = str(optimised)
            try:
                onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            except Exception as error:  # a file that ONNX Runtime's loader refuses
                print(f"{name:34} {exporter}: not optimised: {str(error).splitlines()[0][:80]}")
                continue
            made[f"{exporter}_{level}"] = optimised
    return made


def main():
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--keep", type=Path, help="where the files of what is called divergent are kept")
    parser.add_argument("names", nargs="*", metavar="NAME", help="library:name, as torchvision:resnet50")
    given = parser.parse_intermixed_args()
    wrong = 0
    for name in given.names or stock.EVERY:
        with tempfile.TemporaryDirectory() as place:
            made = files(name, Path(place))
            for a, b in PAIRS:
                if a not in made or b not in made:
                    continue
                start = time.perf_counter()
                report = Path(place) / "report.json"
                command = [given.binary, "diff", made[a], made[b], "--json", report]
                done = subprocess.run(command, capture_output=True, text=True)
                seconds = time.perf_counter() - start
                verdict = json.loads(report.read_text())["verdict"] if report.exists() else done.stderr.strip()[-120:]
                report.unlink(missing_ok=True)
                fine = verdict in ("identical", "equivalent")
                wrong += not fine
                print(f"{name:34} {a + ' ~ ' + b:30} {seconds:7.1f} s  {verdict}{'' if fine else '   WRONG'}", flush=True)
                if not fine and given.keep:
                    kept = given.keep / name.replace(":", "_")
                    kept.mkdir(parents=True, exist_ok=True)
                    for path in (made[a], made[b]):
                        (kept / path.name).write_bytes(path.read_bytes())
    print(f"{wrong} false")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
