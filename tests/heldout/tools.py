#!/usr/bin/env python3
"""Real tools as harmless rewrites: every model of a held-out set, against what each tool makes of it.

usage: tools.py BINARY OUT [OUT ...]

OUT is a folder that generate.py wrote; those of its models that have inputs are rewritten by every tool that is
installed (onnx's version converter; onnxscript; onnxruntime's transformer optimizer; onnxslim; onnxsim; onnxoptimizer).
A pair that `isotrace diff` does not call identical or equivalent is printed with what ONNX Runtime makes of it: how far
apart the outputs of the two files are by its own kernels, or why it refuses the rewritten one. Such a pair is a false
alarm only where ONNX Runtime sees no difference either.
"""
import collections
import importlib
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

FINE = ("identical", "equivalent")


def by_onnxscript(model):
    from onnxscript import ir, optimizer

    form = ir.serde.deserialize_model(model)
    optimizer.optimize(form)
    return ir.serde.serialize_model(form)


def fused_as(kind):
    """The transformer optimizer reads and writes files."""

    def rewrite(model):
        from onnxruntime.transformers import optimizer

        with tempfile.TemporaryDirectory() as folder:
            onnx.save(model, f"{folder}/model.onnx")
            return optimizer.optimize_model(f"{folder}/model.onnx", model_type=kind, opt_level=0).model

    return rewrite


def everything(model):
    import onnxoptimizer

    return onnxoptimizer.optimize(model, onnxoptimizer.get_fuse_and_elimination_passes())


# What it is called, what has to be installed, what it does.
TOOLS = {
    "version 20": ("onnx.version_converter", lambda m: onnx.version_converter.convert_version(m, 20)),
    "version 23": ("onnx.version_converter", lambda m: onnx.version_converter.convert_version(m, 23)),
    "onnxscript optimizer": ("onnxscript", by_onnxscript),
    "onnxscript rewriter": ("onnxscript.rewriter", lambda m: sys.modules["onnxscript.rewriter"].rewrite(m)),
    **{f"transformers {k}": ("onnxruntime.transformers.optimizer", fused_as(k)) for k in ("bert", "gpt2", "vit")},
    "onnxslim": ("onnxslim", lambda m: sys.modules["onnxslim"].slim(m)),
    "onnxsim": ("onnxsim", lambda m: sys.modules["onnxsim"].simplify(m)[0]),
    "onnxoptimizer": ("onnxoptimizer", everything),
}


def installed():
    for name, (module, rewrite) in TOOLS.items():
        try:
            importlib.import_module(module)
            yield name, rewrite
        except ImportError:
            print(f"{name}: not installed, left out")


def outputs(path, inputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, inputs)


def by_runtime(first, second, inputs):
    """The largest difference between the outputs of two files, NaN on one side alone counting as infinite."""
    try:
        pairs = list(zip(outputs(first, inputs), outputs(second, inputs)))
    except Exception as error:
        return f"refused: {str(error).splitlines()[0][:120]}"
    apart = 0.0
    for x, y in pairs:
        x, y = np.asarray(x, float), np.asarray(y, float)
        same = (x == y) | np.isnan(x) & np.isnan(y)
        apart = max([apart, *np.nan_to_num(np.abs(x - y)[~same], nan=np.inf)])
    return f"{apart:.3g} apart"


def verdict(binary, first, second, inputs, folder):
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    command = [binary, "diff", first, second, "--inputs", inputs, "--json", report]
    told = subprocess.run(command, capture_output=True, text=True)
    if not report.exists():
        return "error", told.stderr
    return json.loads(report.read_text())["verdict"], told.stdout


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    logging.disable(logging.CRITICAL)
    binary, counts = sys.argv[1], collections.defaultdict(collections.Counter)
    tools = dict(installed())
    models = sorted(m for out in sys.argv[2:] for m in Path(out).glob("models/*/*.onnx"))
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.onnx"
        for path in (m for m in models if (m.parent / "inputs.npz").exists()):
            inputs = path.parent / "inputs.npz"
            for name, rewrite in tools.items():
                try:
                    onnx.save(rewrite(onnx.load(path)), made)
                except Exception:
                    counts[name]["tool failed"] += 1
                    continue
                found, told = verdict(binary, path, made, inputs, Path(folder))
                counts[name][found] += 1
                if found not in FINE:
                    seen = by_runtime(path, made, dict(np.load(inputs)))
                    print(f"{path.parent.name} {path.stem}, {name}: {found}; {seen}\n    {told.splitlines()[0][:200]}", flush=True)
    for name, count in counts.items():
        print(f"{name:22} {', '.join(f'{n} {what}' for what, n in count.most_common())}")


if __name__ == "__main__":
    main()
