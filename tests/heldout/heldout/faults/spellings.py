"""Faults of the same classes in other words: spelled out where others change a setting, left on, put in twice, half done."""
import numpy as np

from ..graph import attribute, drop_attributes, set_attribute
from .registry import fault, pick, planted
from .weights import _biases, _replace, _weights


def _behind(g, value, stem, op, other, **attributes):
    """A node between `value` and its readers, which takes over its name; (producer, node) or None for a final output."""
    made = g.producer(value)
    if made is None or g.is_output(value):
        return None
    index = list(made.output).index(value)
    before = g.rename_output(made, index, g.fresh(value + "__before"))
    inner = list(made.output)[index]
    node = g.insert_after(made, op, [inner, *other], stem, output=before, **attributes)
    return made, node


def _linear(g, rank=None):
    """What products give and something else than an output reads."""
    return [n.output[0] for n in g.of("MatMul", "Gemm", "Conv") if g.computed(n.output[0]) and not g.is_output(n.output[0])
            and (rank is None or len(g.shape(n.output[0])) == rank)]


def _scores(g):
    """Softmaxes over the keys: (softmax, queries, keys)."""
    return [(n, *g.shape(n.input[0])[-2:]) for n in g.of("Softmax") if g.computed(n.input[0]) and len(g.shape(n.input[0])) >= 3
            and g.shape(n.input[0])[-1] == g.shape(n.input[0])[-2] > 3]


@fault("activation")
def relu_six(g, rng):
    """A ceiling that the function does not have, inside the range that occurs."""
    node = pick(rng, (n for n in g.of("Relu") if g.computed(n.output[0]) and g.values[n.output[0]].max() > 0.1))
    if node is None:
        return None
    top = float(np.quantile(g.values[node.output[0]], 0.98))
    node.op_type = "Clip"
    node.input.extend([g.add_constant(np.float32(0), node.output[0] + "__low"), g.add_constant(np.float32(top), node.output[0] + "__high")])
    return planted(node) if top > 0 else None


@fault("activation")
def silu_for_relu(g, rng):
    node = pick(rng, (n for n in g.of("Relu") if g.computed(n.output[0])))
    if node is None:
        return None
    gate = g.insert(node, "Sigmoid", [node.input[0]], node.output[0] + "__gate")
    node.op_type = "Mul"
    node.input.append(gate.output[0])
    return planted(gate, node)


@fault("activation")
def sigmoid_for_softmax(g, rng):
    node = pick(rng, (n for n in g.of("Softmax") if g.computed(n.output[0])))
    if node is None:
        return None
    node.op_type = "Sigmoid"
    drop_attributes(node)
    return planted(node)


@fault("activation")
def activation_added(g, rng):
    """A non-linearity behind a product that has none."""
    value = pick(rng, _linear(g))
    made = value and _behind(g, value, value + "__act", pick(rng, ["Relu", "Tanh", "Sigmoid"]), [])
    return planted(*made) if made else None


@fault("quantisation")
def quantised_in_words(g, rng):
    """round(x / s) s, spelled out."""
    value = pick(rng, _linear(g))
    if value is None:
        return None
    step = np.float32(np.abs(g.values[value]).max() / 20)
    made = _behind(g, value, value + "__on_grid", "Div", [g.add_constant(step, value + "__step")])
    if made is None:
        return None
    _, node = made
    name = g.rename_output(node, 0, g.fresh(value + "__steps"))
    rounded = g.insert_after(node, "Round", [node.output[0]], value + "__round")
    last = g.insert_after(rounded, "Mul", [rounded.output[0], node.input[1]], value + "__back", output=name)
    return planted(node, rounded, last)


@fault("quantisation")
def weight_four_bits(g, rng):
    """Each output channel on sixteen levels."""
    found = pick(rng, [s for s in _weights(g) if s[2].ndim == 2 and s[2].shape[0] >= 16])
    if found is None:
        return None
    node, i, w = found
    step = np.abs(w).max(axis=0, keepdims=True) / 7
    return _replace(g, node, i, np.round(w / step) * step)


@fault("precision")
def weight_tf32(g, rng):
    """A weight with ten bits of mantissa."""
    found = pick(rng, _weights(g))
    if found is None:
        return None
    bits = np.ascontiguousarray(found[2]).view(np.uint32)
    return _replace(g, found[0], found[1], ((bits + 0x0FFF + ((bits >> 13) & 1)) & 0xFFFFE000).view(np.float32))


@fault("mode")
def dropout_left_on(g, rng):
    """Half of the elements are zero and the others twice as large, the same ones at each run."""
    value = pick(rng, _linear(g))
    if value is None:
        return None
    kept = (rng.random(g.shape(value)[1:]) < 0.5).astype(np.float32) * 2
    made = _behind(g, value, value + "__dropout", "Mul", [g.add_constant(kept, value + "__kept")])
    return planted(made[1], outputs=[made[1].output[0]]) if made else None


@fault("mask")
def causal_added(g, rng):
    """Later positions hidden that are not meant to be, or earlier ones beyond a window."""
    found = pick(rng, _scores(g))
    if found is None:
        return None
    node, rows, columns = found
    i, j = np.mgrid[:rows, :columns]
    hidden = pick(rng, [j > i, i - j > 2, j - i > 1])
    c = g.add_constant(np.where(hidden, np.float32(-1e9), np.float32(0)), node.output[0] + "__hidden")
    added = g.insert(node, "Add", [node.input[0], c], node.output[0] + "__masked")
    node.input[0] = added.output[0]
    return planted(added, node, outputs=[added.output[0], node.output[0]])


@fault("nan")
def rows_hidden(g, rng):
    """One query sees nothing at all."""
    found = pick(rng, _scores(g))
    if found is None:
        return None
    node, rows, columns = found
    hidden = np.zeros((rows, columns), np.float32)
    hidden[rows // 2] = -np.inf
    added = g.insert(node, "Add", [node.input[0], g.add_constant(hidden, node.output[0] + "__hidden")], node.output[0] + "__masked")
    node.input[0] = added.output[0]
    return planted(added, node, outputs=[added.output[0], node.output[0]])


@fault("normalisation")
def root_missing(g, rng):
    """Divided by the variance instead of its root."""
    node = pick(rng, (n for n in g.of("Sqrt") if g.computed(n.output[0]) and any(p is not None and p.op_type == "ReduceMean" for a in g.ancestors(n.output[0], 4) for p in [g.producer(a)])))
    if node is None:
        return None
    node.op_type = "Identity"
    return planted(node)


@fault("normalisation")
def instance_for_batch(g, rng):
    node = pick(rng, (n for n in g.of("BatchNormalization") if len(g.shape(n.input[0])) > 2))
    if node is None:
        return None
    node.op_type = "InstanceNormalization"
    del node.input[3:]
    for a in ("momentum", "training_mode", "spatial"):
        set_attribute(node, a, None)
    return planted(node)


@fault("scale")
def branch_scaled(g, rng):
    """The branch counts half where it joins the skip connection."""
    sites = [(n, i) for n in g.of("Add") for i in (0, 1) if all(g.computed(x) and g.shape(x) == g.shape(n.output[0]) for x in n.input)]
    found = pick(rng, sites)
    if found is None:
        return None
    node, i = found
    less = g.insert(node, "Mul", [node.input[i], g.add_constant(np.float32(0.5), node.output[0] + "__half")], node.output[0] + "__less")
    node.input[i] = less.output[0]
    return planted(less, node, outputs=[less.output[0], node.output[0]])


@fault("layout")
def heads_repeated(g, rng):
    """Keys and values of grouped heads repeated as a whole (1 2 1 2) where each is meant to be repeated (1 1 2 2)."""
    sites = []
    for n in g.of("Expand"):
        shape = g.shape(n.output[0])
        for r in g.consumers(n.output[0]):
            if r.op_type == "Reshape" and shape and len(shape) == 5 and shape[1] > 1 and shape[2] > 1 and g.computed(n.output[0]):
                sites.append((n, r))
    found = pick(rng, sites)
    if found is None:
        return None
    turned = g.insert(found[1], "Transpose", [found[0].output[0]], found[1].output[0] + "__turned", perm=[0, 2, 1, 3, 4])
    found[1].input[0] = turned.output[0]
    return planted(turned, found[1], outputs=[turned.output[0], found[1].output[0]])


@fault("index")
def sequence_reversed(g, rng):
    """The positions are read from the last to the first."""
    value = pick(rng, _linear(g, 3))
    if value is None or g.shape(value)[1] < 3:
        return None
    order = g.add_constant(np.arange(g.shape(value)[1])[::-1].astype(np.int64), value + "__order")
    made = _behind(g, value, value + "__reversed", "Gather", [order], axis=1)
    return planted(made[1], outputs=[made[1].output[0]]) if made else None


@fault("bias")
def bias_sign(g, rng):
    found = pick(rng, [s for s in _biases(g) if np.abs(s[2]).max() > 1e-3])
    return None if found is None else _replace(g, found[0], found[1], found[2] * pick(rng, [-1, 2]))


@fault("axis")
def joined_elsewhere(g, rng):
    """A softmax or reduction over the axis next to the one that is meant, as settings counted from the other end give it."""
    node = pick(rng, (n for n in g.of("Softmax", "LogSoftmax") if g.computed(n.output[0]) and len(g.shape(n.output[0])) >= 3))
    if node is None:
        return None
    rank = len(g.shape(node.output[0]))
    set_attribute(node, "axis", (attribute(node, "axis", -1) % rank + rank - 1) % rank)
    return planted(node)
