"""Lower precision, overflow, quantisation of activations, numbers that are none, other reductions."""
import numpy as np
from onnx import TensorProto

from ..graph import drop_attributes, set_attribute
from .registry import Planted, fault, pick, planted

ROUNDED = ("MatMul", "Gemm", "Conv", "ConvTranspose", "Softmax", "Add", "LayerNormalization", "BatchNormalization", "LSTM", "GRU", "Mul")


def _site(g, rng):
    return pick(rng, (n for n in g.of(*ROUNDED) if g.computed(n.output[0]) and not g.is_output(n.output[0]) and np.abs(g.values[n.output[0]]).max() < 1e4 and g.consumers(n.output[0])))


def _chain(g, node, steps):
    """Puts steps (op, extra inputs, attributes) behind a node; every reader reads the last. All the names name the fault."""
    first = node.output[0]
    readers = {n.name for n in g.consumers(first)}
    value, after, nodes, names = first, node, [node], [first]
    for k, (op, extra, attributes) in enumerate(steps, 1):
        made = g.insert_after(after, op, [value, *extra], f"{first}__{k}", output=g.fresh(f"{first}__{k}"), **attributes)
        value, after = made.output[0], made
        nodes.append(made)
        names.append(value)
    for n in g.nodes:
        if n.name in readers:
            for i, name in enumerate(n.input):
                if name == first:
                    n.input[i] = value
    return Planted([n.name for n in nodes], names, node.op_type)


@fault("precision")
def low_precision(g, rng):
    """One tensor goes through float16 and back."""
    node = _site(g, rng)
    return None if node is None else _chain(g, node, [("Cast", [], {"to": TensorProto.FLOAT16}), ("Cast", [], {"to": TensorProto.FLOAT})])


@fault("precision")
def bfloat16(g, rng):
    node = _site(g, rng)
    return None if node is None else _chain(g, node, [("Cast", [], {"to": TensorProto.BFLOAT16}), ("Cast", [], {"to": TensorProto.FLOAT})])


@fault("precision")
def overflow_half(g, rng):
    """Scaled up, through float16, scaled down: the range just fits, or it does not and infinities are born."""
    node = _site(g, rng)
    if node is None:
        return None
    name, bursts = node.output[0], bool(rng.integers(2))
    factor = np.float32((1.6 if bursts else 0.9) * 65504 / np.abs(g.values[name]).max())
    up, down = g.add_constant(factor, name + "__s"), g.add_constant(np.float32(1) / factor, name + "__r")
    made = _chain(g, node, [("Mul", [up], {}), ("Cast", [], {"to": TensorProto.FLOAT16}), ("Cast", [], {"to": TensorProto.FLOAT}), ("Mul", [down], {})])
    made.cause = "overflow" if bursts else "precision"
    return made


@fault("quantisation")
def fake_quantisation(g, rng):
    """One tensor goes through eight bits and back, with one step for all of it."""
    node = _site(g, rng)
    if node is None:
        return None
    name = node.output[0]
    step = g.add_constant(np.float32(np.abs(g.values[name]).max() / 127), name + "__step")
    zero = g.add_constant(np.int8(0), name + "__zero")
    return _chain(g, node, [("QuantizeLinear", [step, zero], {}), ("DequantizeLinear", [step, zero], {})])


@fault("precision")
def half_product(g, rng):
    """A product computed in float16: both factors are narrowed, the result is widened."""
    node = pick(rng, (n for n in g.of("MatMul") if g.computed(n.output[0])))
    if node is None:
        return None
    out, added = node.output[0], []
    for i in (0, 1):
        narrow = g.insert(node, "Cast", [node.input[i]], f"{out}__half{i}", to=TensorProto.FLOAT16)
        node.input[i] = narrow.output[0]
        added.append(narrow)
    g.rename_output(node, 0, g.fresh(out + "__half"))
    wide = g.insert_after(node, "Cast", [node.output[0]], out + "__wide", output=out, to=TensorProto.FLOAT)
    return planted(*added, node, wide, outputs=[node.output[0], out])


@fault("nan")
def nan_born(g, rng):
    """The argument of a root or logarithm slips below zero in one place."""
    node = pick(rng, (n for n in g.of("Sqrt", "Log") if g.computed(n.input[0])))
    if node is None:
        return None
    x = np.sort(g.values[node.input[0]].reshape(-1))
    c = g.add_constant(np.float32((x[0] + x[1]) / 2), node.input[0] + "__subc")
    less = g.insert(node, "Sub", [node.input[0], c], node.input[0] + "__sub", output=g.fresh(node.input[0] + "__sub"))
    node.input[0] = less.output[0]
    return planted(less, node, outputs=[less.output[0], node.output[0]])


@fault("nan")
def power_by_logarithm(g, rng):
    """x to the power of n as exp(n log x), which has no value where x is negative."""
    node = pick(rng, (n for n in g.of("Pow") if g.scalar(n.input[1]) is not None and g.computed(n.input[0]) and g.values[n.input[0]].min() < 0))
    if node is None:
        return None
    x, exponent, stem = node.input[0], node.input[1], node.output[0] + "__by_log"
    log = g.insert(node, "Log", [x], stem)
    times = g.insert(node, "Mul", [log.output[0], exponent], stem)
    node.op_type = "Exp"
    del node.input[1:]
    node.input[0] = times.output[0]
    return planted(log, times, node, outputs=[log.output[0], times.output[0], node.output[0]])


REDUCTIONS = {"ReduceMean": ["ReduceMax", "ReduceL2"], "ReduceMax": ["ReduceMean"], "ReduceSum": ["ReduceMax", "ReduceMean"], "GlobalAveragePool": ["GlobalMaxPool"],
              "ReduceLogSumExp": ["ReduceMax"]}


@fault("reduction")
def reduce_kind(g, rng):
    node = pick(rng, (n for n in g.of(*REDUCTIONS) if g.computed(n.input[0])))
    if node is None:
        return None
    wanted = pick(rng, REDUCTIONS[node.op_type])
    if node.op_type == "ReduceSum" and len(node.input) > 1 and g.opset < 18:
        # up to version 17 only ReduceSum reads its axes as an input
        axes = g.constant(node.input[1])
        set_attribute(node, "axes", [int(a) for a in axes])
        set_attribute(node, "noop_with_empty_axes", None)
        del node.input[1]
    node.op_type = wanted
    return planted(node)


@fault("reduction")
def pool_kind(g, rng):
    node = pick(rng, g.of("AveragePool", "MaxPool"))
    if node is None:
        return None
    node.op_type = "MaxPool" if node.op_type == "AveragePool" else "AveragePool"
    drop_attributes(node, "count_include_pad", "storage_order", "dilations")
    return planted(node)
