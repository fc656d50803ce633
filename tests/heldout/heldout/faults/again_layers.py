"""What goes wrong in blocks of other fields when they are ported: factors, bounds, borders, functions, statistics. Third set."""
import numpy as np
from onnx import TensorProto

from ..graph import attribute, drop_attributes, set_attribute
from .registry import fault, pick, planted
from .spellings import _behind
from .weights import _biases, _replace, _weights


def _hand_on(node, x):
    """The node gives one of its inputs as it is."""
    node.op_type, node.domain = "Identity", ""
    drop_attributes(node)
    del node.input[:], node.output[1:]
    node.input.append(x)
    return planted(node)


def _reached(g, name, ops, steps=3):
    """Is the value read by one of the operators, at most so many nodes on?"""
    at = [name]
    for _ in range(steps):
        readers = [c for a in at for c in g.consumers(a)]
        if any(c.op_type in ops for c in readers):
            return True
        at = [o for c in readers for o in c.output]
    return False


def _made_by(g, name, ops, limit=6):
    return any(p is not None and p.op_type in ops for a in [name, *g.ancestors(name, limit)] for p in [g.producer(a)])


def _is_factor(g, n, i):
    """A number other than 1 by which computed data is multiplied or divided, outside of attention and of functions."""
    s = g.scalar(n.input[i])
    return (s is not None and abs(s - 1) > 1e-3 and abs(s) > 1e-3 and g.computed(n.input[1 - i]) and g.shape(n.output[0]) == g.shape(n.input[1 - i])
            and not _reached(g, n.output[0], ("Softmax", "Erf", "Tanh", "Sin", "Cos", "Sigmoid", "Exp", "Sqrt"), 2) and not _made_by(g, n.input[1 - i], ("Erf", "Tanh", "Sin", "Cos", "Softmax"), 1))


@fault("scale")
def factor_dropped(g, rng):
    """A constant factor between layers forgotten: a half, a root of two, an inverse number of branches."""
    found = pick(rng, [(n, i) for n in g.of("Mul", "Div") for i in (0, 1) if (n.op_type == "Mul" or i == 1) and _is_factor(g, n, i)])
    if found is None:
        return None
    node, i = found
    return _hand_on(node, node.input[1 - i])


@fault("scale")
def divided_for_multiplied(g, rng):
    """A number multiplied by that is to be divided by, or the other way round."""
    found = pick(rng, [(n, i) for n in g.of("Mul", "Div") for i in (0, 1) if (n.op_type == "Mul" or i == 1) and _is_factor(g, n, i)])
    if found is None:
        return None
    node, i = found
    if i == 0:
        node.input[0], node.input[1] = node.input[1], node.input[0]
    node.op_type = "Div" if node.op_type == "Mul" else "Mul"
    return planted(node)


@fault("scale")
def scale_behind_softmax(g, rng):
    """What scales the scores scales the weights instead."""
    sites = []
    for s in g.of("Softmax"):
        m = g.producer(s.input[0])
        if m is not None and m.op_type in ("Mul", "Div") and len(g.consumers(m.output[0])) == 1 and g.scalar(m.input[1]) is not None and g.computed(m.input[0]):
            sites.append((s, m))
    found = pick(rng, sites)
    if found is None:
        return None
    s, m = found
    op, factor = m.op_type, m.input[1]
    out = g.rename_output(s, 0, g.fresh(s.output[0] + "__bare"))
    _hand_on(m, m.input[0])
    late = g.insert_after(s, op, [s.output[0], factor], out + "__scaled", output=out)
    return planted(m, s, late, outputs=[m.output[0], s.output[0], out])


@fault("scale")
def sign_dropped(g, rng):
    """A minus forgotten, outside of rotations."""
    node = pick(rng, (n for n in g.of("Neg") if g.computed(n.output[0]) and not any(c.op_type == "Concat" for c in g.consumers(n.output[0]))))
    return None if node is None else _hand_on(node, node.input[0])


@fault("scale")
def extent_per_axis(g, rng):
    """Numbers for each of a few columns forgotten: the variances by which boxes are coded, the sizes of a grid."""
    sites = []
    for n in g.of("Mul", "Div"):
        for i in (0, 1) if n.op_type == "Mul" else (1,):
            c = g.value(n.input[i])
            if n.input[i] not in g.live and c is not None and c.dtype == np.float32 and c.ndim and 2 <= c.shape[-1] <= 4 and c.size <= 8 and g.computed(n.input[1 - i]) and np.abs(c - 1).max() > 0.01:
                sites.append((n, i))
    found = pick(rng, sites)
    if found is None:
        return None
    node, i = found
    return _hand_on(node, node.input[1 - i])


@fault("scale")
def gate_probability_dropped(g, rng):
    """What an expert or a branch gives is not weighted by what its gate says."""
    sites = []
    for n in g.of("Mul"):
        for i in (0, 1):
            gate, x = n.input[i], n.input[1 - i]
            if g.computed(n.output[0]) and gate in g.live and g.shape(x) == g.shape(n.output[0]) and g.shape(gate) is not None and g.value(gate).size * 2 <= g.value(x).size and _made_by(
                    g, gate, ("Softmax", "Sigmoid", "HardSigmoid"), 4) and not _made_by(g, gate, ("Sqrt",), 6) and x in g.live:
                sites.append((n, i))
    found = pick(rng, sites)
    if found is None:
        return None
    node, i = found
    return _hand_on(node, node.input[1 - i])


@fault("normalisation")
def one_plus_dropped(g, rng):
    """x * scale + shift where x * (1 + scale) + shift is meant."""
    sites = [(n, i) for n in g.of("Add") for i in (0, 1) if g.scalar(n.input[i]) == 1.0 and n.input[1 - i] in g.live and _reached(g, n.output[0], ("Mul",), 2) and g.is_float(n.output[0])
             and _made_by(g, n.input[1 - i], ("Gemm", "MatMul"), 6) and not _made_by(g, n.input[1 - i], ("Exp", "Erf", "Sigmoid", "Tanh", "Elu", "Pow"), 2)]
    found = pick(rng, sites)
    if found is None:
        return None
    node, i = found
    return _hand_on(node, node.input[1 - i])


@fault("normalisation")
def length_not_undone(g, rng):
    """Not divided by the root of the sum of squares where that is written as a product with its inverse."""
    sites = []
    for n in g.of("Mul"):
        for i in (0, 1):
            p = g.producer(n.input[i])
            if p is not None and p.op_type in ("Reciprocal", "Div") and _made_by(g, n.input[i], ("Sqrt",), 3) and g.shape(n.output[0]) == g.shape(n.input[1 - i]) and g.computed(n.output[0]):
                sites.append((n, i))
    found = pick(rng, sites)
    if found is None:
        return None
    node, i = found
    return _hand_on(node, node.input[1 - i])


@fault("activation")
def exponent_dropped(g, rng):
    """The exponential of a size or a rate forgotten."""
    node = pick(rng, (n for n in g.of("Exp") if g.is_float(n.output[0]) and n.output[0] in g.live and g.value(n.output[0]).size > 1))
    return None if node is None else _hand_on(node, node.input[0])


@fault("activation")
def euler_step(g, rng):
    """1 + x where exp(x) is meant."""
    node = pick(rng, (n for n in g.of("Exp") if n.output[0] in g.live and g.value(n.output[0]).size > 1 and np.isfinite(g.value(n.input[0])).all()))
    if node is None:
        return None
    node.op_type = "Add"
    node.input.append(g.add_constant(np.float32(1), node.output[0] + "__one"))
    return planted(node)


@fault("activation")
def bound_dropped(g, rng):
    """A clipping that is left out and that shows."""
    sites = [n for n in g.of("Clip", "Max", "Min") if g.computed(n.output[0]) and g.shape(n.input[0]) == g.shape(n.output[0]) and np.abs(g.value(n.output[0]) - g.value(n.input[0])).max() > 1e-3
             and (n.op_type == "Clip" or g.scalar(n.input[1]) is not None)]
    node = pick(rng, sites)
    return None if node is None else _hand_on(node, node.input[0])


@fault("reduction")
def other_extreme(g, rng):
    """The smaller of two where the larger is meant."""
    node = pick(rng, (n for n in g.of("Max", "Min") if len(n.input) == 2 and all(i in g.live for i in n.input) and g.is_float(n.output[0])))
    if node is None:
        return None
    node.op_type = "Min" if node.op_type == "Max" else "Max"
    return planted(node)


@fault("activation")
def magnitude_dropped(g, rng):
    node = pick(rng, (n for n in g.of("Abs") if g.computed(n.output[0]) and g.value(n.input[0]).min() < 0))
    return None if node is None else _hand_on(node, node.input[0])


@fault("activation")
def exponent_changed(g, rng):
    """Another power, outside of statistics."""
    sites = [n for n in g.of("Pow") if g.computed(n.output[0]) and g.scalar(n.input[1]) in (2.0, 3.0) and not _reached(g, n.output[0], ("ReduceMean", "ReduceSum", "Sqrt"), 2)]
    node = pick(rng, sites)
    if node is None:
        return None
    node.input[1] = g.add_constant(np.float32(5 - g.scalar(node.input[1])), node.input[1] + "__z")
    return planted(node)


@fault("activation")
def sine_for_cosine(g, rng):
    """A periodic activation with the other function."""
    node = pick(rng, (n for n in g.of("Sin", "Cos") if g.computed(n.output[0]) and not _made_by(g, n.input[0], ("Cast", "Range"), 5)
                      and any(c.op_type in ("Pow", "Mul", "MatMul", "Gemm") for c in g.consumers(n.output[0]))))
    if node is None:
        return None
    node.op_type = "Cos" if node.op_type == "Sin" else "Sin"
    return planted(node)


@fault("activation")
def sigmoid_hard(g, rng):
    """A sigmoid by straight lines, or the other way round."""
    node = pick(rng, (n for n in g.of("Sigmoid", "HardSigmoid") if g.computed(n.output[0])))
    if node is None:
        return None
    hard = node.op_type == "HardSigmoid"
    node.op_type = "Sigmoid" if hard else "HardSigmoid"
    drop_attributes(node)
    if not hard:
        set_attribute(node, "alpha", 1 / 6)
    return planted(node)


@fault("bias")
def bias_twice(g, rng):
    """A bias added by the kernel and once more behind it."""
    found = pick(rng, [(n, i) for n, i, b in _biases(g) if n.op_type in ("Add", "Gemm", "Conv") and not g.is_output(n.output[0])])
    if found is None:
        return None
    node, i = found
    b = g.constant(node.input[i])
    shape = [1, -1, *[1] * (len(g.shape(node.output[0])) - 2)] if node.op_type == "Conv" else b.shape
    made = _behind(g, node.output[0], node.output[0] + "__again", "Add", [g.add_constant(b.reshape(shape), node.output[0] + "__b")])
    return planted(*made) if made else None


@fault("bias")
def bias_negative(g, rng):
    """A shift taken off that is to be added, or added that is to be taken off."""
    sites = [(n, i) for n in g.of("Add", "Sub") for i in (0, 1) if (n.op_type == "Add" or i == 1) and (c := g.constant(n.input[i])) is not None and c.dtype == np.float32 and c.size > 2
             and c.size == max(c.shape) and g.computed(n.input[1 - i]) and np.abs(c).max() < 1e3]
    found = pick(rng, sites)
    if found is None:
        return None
    node, i = found
    if i == 0:
        node.input[0], node.input[1] = node.input[1], node.input[0]
    node.op_type = "Sub" if node.op_type == "Add" else "Add"
    return planted(node)


@fault("padding")
def deconvolution_cropped(g, rng):
    """A transposed convolution that cuts off its borders at other ends."""
    sites = [n for n in g.of("ConvTranspose") if max(attribute(n, "strides", [1])) > 1 and any(attribute(n, "pads", [0]))]
    node = pick(rng, sites)
    if node is None:
        return None
    pads = list(attribute(node, "pads"))
    half = len(pads) // 2
    for k in range(half):
        if pads[k + half] > 0:
            pads[k], pads[k + half] = pads[k] + 1, pads[k + half] - 1
    set_attribute(node, "pads", pads)
    return planted(node)


@fault("padding")
def border_repeated(g, rng):
    """A border of noughts where the kernel's own is used, or the edge repeated: the padding of another framework's layer."""
    sites = [n for n in g.of("Conv") if any(attribute(n, "pads", [0])) and len(set(attribute(n, "strides", [1]))) == 1 and attribute(n, "auto_pad", b"NOTSET") == b"NOTSET"]
    node = pick(rng, sites)
    if node is None:
        return None
    pads = list(attribute(node, "pads"))
    half = len(pads) // 2
    full = g.add_constant(np.array([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64), node.output[0] + "__pads")
    padded = g.insert(node, "Pad", [node.input[0], full], node.output[0] + "__padded", mode="edge")
    node.input[0] = padded.output[0]
    set_attribute(node, "pads", [0] * len(pads))
    return planted(padded, node, outputs=[padded.output[0], node.output[0]])


@fault("quantisation")
def step_of_all(g, rng):
    """One step for the whole weight where each row has its own."""
    sites = [n for n in g.of("DequantizeLinear") if (s := g.constant(n.input[1])) is not None and s.size > 1]
    node = pick(rng, sites)
    if node is None:
        return None
    s = g.constant(node.input[1])
    node.input[1] = g.add_constant(np.full(s.shape, s.mean(), np.float32), node.input[1] + "__z")
    return planted(node)


@fault("quantisation")
def step_of_layer(g, rng):
    """Dequantised with the step of another tensor."""
    sites = [n for n in g.of("DequantizeLinear") if g.scalar(n.input[1]) is not None]
    others = {g.scalar(n.input[1]) for n in sites}
    node = pick(rng, sites)
    other = node and pick(rng, sorted(others - {g.scalar(node.input[1])}))
    if not other:
        return None
    node.input[1] = g.add_constant(np.float32(other), node.input[1] + "__z")
    return planted(node)


@fault("quantisation")
def zero_ignored(g, rng):
    """The zero point of what comes in counted as nought."""
    sites = [n for n in g.of("DequantizeLinear") if len(n.input) > 2 and (z := g.constant(n.input[2])) is not None and z.size == 1 and int(z.reshape(-1)[0]) != 0]
    node = pick(rng, sites)
    if node is None:
        return None
    z = g.constant(node.input[2])
    node.input[2] = g.add_constant(np.zeros(z.shape, z.dtype), node.input[2] + "__z")
    return planted(node)


@fault("normalisation")
def variance_for_deviation(g, rng):
    """Divided by the variance where the deviation is meant: the root in a norm left out."""
    sites = [n for n in g.of("Sqrt") if g.is_float(n.output[0]) and n.output[0] in g.live and _made_by(g, n.input[0], ("ReduceMean",), 4) and any(c.op_type in ("Div", "Reciprocal") for c in g.consumers(n.output[0]))]
    node = pick(rng, sites)
    return None if node is None else _hand_on(node, node.input[0])


@fault("normalisation")
def norm_per_all(g, rng):
    """A group norm computed as one over each channel, or over all: its statistics span other elements."""
    sites = []
    for n in g.of("InstanceNormalization"):
        r = g.producer(n.input[0])
        if r is not None and r.op_type == "Reshape" and g.shape(n.input[0])[1] > 1 and len(g.shape(r.input[0])) >= 3:
            sites.append((n, r))
    found = pick(rng, sites)
    if found is None:
        return None
    node, r = found
    b, groups, size = (*g.shape(node.input[0])[:2], int(np.prod(g.shape(node.input[0])[2:])))
    new = g.add_constant(np.array([b, 1, groups * size], np.int64), r.output[0] + "__shape")
    one = g.insert(node, "Reshape", [r.input[0], new], r.output[0] + "__one")
    node.input[0] = one.output[0]
    scale, shift = (g.constant(i) for i in node.input[1:3])
    if scale is None or shift is None or np.ptp(scale) or np.ptp(shift):
        return None
    node.input[1], node.input[2] = g.add_constant(scale[:1], node.output[0] + "__s"), g.add_constant(shift[:1], node.output[0] + "__b")
    return planted(one, node, outputs=[one.output[0], node.output[0]])


@fault("weight_value")
def kernel_scaled_twice(g, rng):
    """The gain of a weight norm multiplied in once more: each output channel by a number of its own."""
    found = pick(rng, [s for s in _weights(g) if s[2].ndim >= 3 and s[0].op_type == "Conv" and s[2].shape[0] > 3])
    if found is None:
        return None
    node, i, w = found
    length = np.sqrt((w ** 2).sum(axis=tuple(range(1, w.ndim)), keepdims=True))
    return _replace(g, node, i, w * length)


@fault("weight_value")
def columns_pruned(g, rng):
    """Inputs of a layer that were pruned on one side only: whole rows of its matrix at nought."""
    found = pick(rng, [s for s in _weights(g) if s[2].ndim == 2 and s[0].op_type in ("MatMul", "Gemm") and min(s[2].shape) >= 8])
    if found is None:
        return None
    node, i, w = found
    w = w.copy()
    w[rng.permutation(w.shape[0])[: max(2, w.shape[0] // 6)]] = 0
    return _replace(g, node, i, w)


@fault("precision")
def table_in_half(g, rng):
    """An embedding or a bank of vectors stored in brain floats."""
    sites = [(n, 0, t) for n in g.of("Gather") if (t := g.constant(n.input[0])) is not None and t.dtype == np.float32 and t.ndim == 2 and t.size > 64]
    found = pick(rng, sites)
    if found is None:
        return None
    node, i, t = found
    bits = np.ascontiguousarray(t).view(np.uint32)
    return _replace(g, node, i, ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32))


@fault("precision")
def exponents_in_half(g, rng):
    """What an exponential is taken of kept in half precision."""
    node = pick(rng, (n for n in g.of("Exp", "Softplus", "Log") if g.computed(n.output[0]) and g.computed(n.input[0]) and np.abs(g.value(n.input[0])).max() < 6e4))
    if node is None:
        return None
    narrow = g.insert(node, "Cast", [node.input[0]], node.output[0] + "__narrow", to=TensorProto.FLOAT16)
    wide = g.insert(node, "Cast", [narrow.output[0]], node.output[0] + "__wide", to=TensorProto.FLOAT)
    node.input[0] = wide.output[0]
    return planted(narrow, wide, node, outputs=[narrow.output[0], wide.output[0], node.output[0]])
