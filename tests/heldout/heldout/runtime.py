"""ONNX Runtime as a black box: run a model, run it with every value kept, optimise it."""
import os
import pathlib
import tempfile

import numpy as np
import onnx
import onnxruntime as ort

LEVELS = {"basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC, "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL}
NOT_FINITE = 9.0


def _options(level):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return options


def run(model, inputs, names=None):
    """The model's outputs, as the file says them (no optimisation)."""
    session = ort.InferenceSession(model.SerializeToString(), _options(ort.GraphOptimizationLevel.ORT_DISABLE_ALL), providers=["CPUExecutionProvider"])
    names = names or [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {k: v for k, v in inputs.items() if k in {i.name for i in session.get_inputs()}})))


def run_all(model, inputs):
    """Every value computed in the main graph, by name; bfloat16 ones are left out, NumPy has no such type."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    have = {o.name for o in probe.graph.output}
    for node in probe.graph.node:
        for name in node.output:
            narrow = node.op_type == "Cast" and any(a.name == "to" and a.i == onnx.TensorProto.BFLOAT16 for a in node.attribute)
            if name and name not in have and not narrow:
                have.add(name)
                probe.graph.output.append(onnx.ValueInfoProto(name=name))
    return run(probe, inputs)


def optimise(model, level):
    """What ONNX Runtime makes of the model at that level, as a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "optimised.onnx")
        options = _options(LEVELS[level])
        options.optimized_model_filepath = path
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(pathlib.Path(path))


def relative_difference(a, b):
    """max|a-b| / max|a|, or NOT_FINITE where the second is not finite."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return NOT_FINITE
    a, b = a.astype(np.float64), b.astype(np.float64)
    if not a.size:
        return 0.0
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return 0.0 if np.array_equal(a, b, equal_nan=True) else NOT_FINITE
    return float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30))


def output_difference(a, b):
    """Worst relative difference over outputs paired by position."""
    return max(relative_difference(x, y) for x, y in zip(a.values(), b.values()))
