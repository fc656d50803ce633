"""Builds the networks and writes models/<network>/{<base>.onnx, inputs.npz, expected.npz}."""
import contextlib
import io
import pathlib
import warnings
import zlib

import numpy as np
import onnx
import torch

from . import networks_direct
from .populations import POPULATIONS
from .runtime import relative_difference, run
from .spread import spread

NETWORKS = {name: builder for p in POPULATIONS.values() for name, builder in p.networks.items()}


def seed_of(*words):
    """A seed that depends on the words alone, so that any single case can be made again."""
    return zlib.crc32("/".join(map(str, words)).encode())


def strip(model):
    """Drops what names the exporting machine: documentation, stack traces and other metadata."""
    graphs = [model.graph, *model.functions]
    model.doc_string = ""
    del model.metadata_props[:]
    while graphs:
        g = graphs.pop()
        g.doc_string = ""
        del g.metadata_props[:]
        for node in g.node:
            node.doc_string = ""
            del node.metadata_props[:]
            graphs += [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
        for part in ("input", "output", "initializer", "value_info"):
            for v in getattr(g, part, []):
                if not isinstance(v, str):
                    v.doc_string = ""
                    del v.metadata_props[:]
    return model


def _export(module, inputs, base):
    args, names = tuple(inputs.values()), list(inputs)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        outputs = [f"out{i}" for i, _ in enumerate(module(*args))] if isinstance(module(*args), tuple) else ["out0"]
        if base == "dynamo":
            program = torch.onnx.export(module, args, dynamo=True, input_names=names, output_names=outputs, opset_version=18, verbose=False)
            return strip(program.model_proto)
        torch.onnx.export(module, args, buffer, dynamo=False, input_names=names, output_names=outputs, opset_version=17, do_constant_folding=True)
    return strip(onnx.load_from_string(buffer.getvalue()))


def build(network, out):
    """Returns {base: model} and the inputs; exports what is not there yet. A base that fails to export is left out with a line saying why."""
    folder = pathlib.Path(out) / "models" / network
    folder.mkdir(parents=True, exist_ok=True)
    done = {p.stem: onnx.load(p) for p in sorted(folder.glob("*.onnx"))}
    if done and (folder / "expected.npz").exists():
        return done, dict(np.load(folder / "inputs.npz"))
    rng = np.random.default_rng(seed_of(network))
    torch.manual_seed(seed_of(network))
    if network in networks_direct.BUILDERS:
        models, inputs = NETWORKS[network](rng)
    else:
        module, tensors = NETWORKS[network](rng)
        module = spread(module.eval(), rng)
        inputs = {k: v.numpy() for k, v in tensors.items()}
        models = {}
        for base in ("script", "dynamo"):
            try:
                models[base] = _export(module, tensors, base)
                got = list(run(models[base], inputs).values())
                with torch.no_grad():
                    want = module(*tensors.values())
                want = [w.numpy() for w in (want if isinstance(want, tuple) else (want,))]
                worst = max(relative_difference(w, g) for w, g in zip(want, got))
                if worst > 1e-4:
                    raise ValueError(f"differs from the torch module by {worst:.1e}")
            except Exception as e:
                models.pop(base, None)
                print(f"{network}: no {base} export: {type(e).__name__}: {str(e)[:300]}")
    for base, model in models.items():
        onnx.save(model, folder / f"{base}.onnx")
    np.savez_compressed(folder / "inputs.npz", **inputs)
    first = models[sorted(models)[-1]]
    np.savez_compressed(folder / "expected.npz", **run(first, inputs))
    return dict(sorted(models.items())), inputs
