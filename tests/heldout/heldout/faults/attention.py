"""Scales in front of the softmax, its axis, and everything about masks."""
import numpy as np

from ..graph import set_attribute
from .registry import fault, pick, planted


def _scaled(g):
    """(node, input index) of products and quotients by one float constant."""
    return [(n, i) for n in g.of("Mul", "Div") for i, name in enumerate(n.input)
            if g.scalar(name) not in (None, 0.0) and g.computed(n.output[0]) and (n.op_type == "Mul" or i == 1)]


def _before_softmax(g):
    near = {a for s in g.of("Softmax") for a in g.ancestors(s.input[0], 8)} | {s.input[0] for s in g.of("Softmax")}
    return [(n, i) for n, i in _scaled(g) if n.output[0] in near]


def _rescale(g, node, i, factor):
    old = g.constant(node.input[i])
    node.input[i] = g.add_constant((old * np.float32(factor)).astype(np.float32), node.input[i] + "__z")


@fault("scale")
def attention_scale(g, rng):
    found = pick(rng, _before_softmax(g))
    if found is None:
        return None
    _rescale(g, *found, pick(rng, [3 ** 0.5, 0.5, 12 ** -0.5]))
    return planted(found[0])


@fault("scale")
def small_scale(g, rng):
    found = pick(rng, _scaled(g))
    if found is None:
        return None
    _rescale(g, *found, 1.001)
    return planted(found[0])


@fault("scale")
def scale_missing(g, rng):
    """The factor is one. Factors inside activations are left alone: without them it is another activation."""
    inside = {i for n in g.of("Sigmoid", "Tanh", "Erf") for i in [n.input[0], *g.ancestors(n.input[0], 5)]}
    found = pick(rng, [(n, i) for n, i in _scaled(g) if abs(g.scalar(n.input[i]) - 1) > 0.05 and n.output[0] not in inside])
    if found is None:
        return None
    node, i = found
    node.input[i] = g.add_constant(np.ones(g.shape(node.input[i]), np.float32), node.input[i] + "__z")
    return planted(node)


@fault("scale")
def double_scale(g, rng):
    """The factor is applied twice. The second product takes over the name of the first."""
    found = pick(rng, [(n, i) for n, i in _before_softmax(g) if not g.is_output(n.output[0])])
    if found is None:
        return None
    node, i = found
    out = g.rename_output(node, 0, g.fresh(node.output[0] + "__once"))
    again = g.insert_after(node, node.op_type, [node.output[0], node.input[i]], out + "__twice", output=out)
    return planted(node, again)


@fault("scale")
def softmax_temperature(g, rng):
    node = pick(rng, (n for n in g.of("Softmax", "LogSoftmax") if g.computed(n.input[0]) and not g.is_output(n.input[0]) and len(g.consumers(n.input[0])) == 1))
    if node is None:
        return None
    source = g.producer(node.input[0])
    name = node.input[0]
    g.rename_output(source, list(source.output).index(name), g.fresh(name + "__cold"))
    factor = g.add_constant(np.float32(pick(rng, [1.1, 0.7, 2.0])), name + "__t")
    warm = g.insert_after(source, "Mul", [source.output[0], factor], name + "__warm", output=name)
    return planted(source, warm)


@fault("axis")
def softmax_axis(g, rng):
    node = pick(rng, (n for n in g.of("Softmax", "LogSoftmax") if g.computed(n.output[0]) and len(g.shape(n.output[0])) > 1))
    if node is None:
        return None
    rank = len(g.shape(node.output[0]))
    set_attribute(node, "axis", rank - 2)
    return planted(node)


def _mask_adds(g):
    """(node, index) of sums one side of which holds very negative numbers."""
    sites = []
    for n in g.of("Add"):
        for i, name in enumerate(n.input):
            v = g.value(name)
            if v is not None and v.dtype == np.float32 and v.size > 1 and v.min() < -1e4 and g.value(n.input[1 - i]) is not None and np.abs(g.value(n.input[1 - i])).max() < 1e4:
                sites.append((n, i))
    return sites


@fault("mask")
def mask_dropped(g, rng):
    found = pick(rng, _mask_adds(g))
    if found is None:
        return None
    node, i = found
    node.input[i] = g.add_constant(np.zeros(1, np.float32), node.output[0] + "__zero")
    return planted(node)


def _mask_wheres(g):
    """Choices between a very negative constant and something else."""
    return [n for n in g.of("Where") if g.is_float(n.output[0]) and any((g.scalar(i) or 0) < -1e4 for i in n.input[1:])]


@fault("mask")
def mask_inverted(g, rng):
    """What should be seen is hidden and the other way round."""
    node = pick(rng, _mask_wheres(g))
    if node is not None:
        node.input[1], node.input[2] = node.input[2], node.input[1]
        return planted(node)
    found = pick(rng, [(n, i) for n, i in _mask_adds(g) if g.constant(n.input[i]) is not None])
    if found is None:
        return None
    node, i = found
    old = g.constant(node.input[i])
    node.input[i] = g.add_constant(np.where(old < -1e4, np.float32(0), np.float32(old.min())), node.input[i] + "__z")
    return planted(node)


@fault("mask")
def mask_weak(g, rng):
    """The number that hides is not negative enough."""
    node = pick(rng, _mask_wheres(g))
    if node is not None:
        i = next(i for i in (1, 2) if (g.scalar(node.input[i]) or 0) < -1e4)
        node.input[i] = g.add_constant(np.full(g.shape(node.input[i]), -3.0, np.float32), node.input[i] + "__z")
        return planted(node)
    found = pick(rng, [(n, i) for n, i in _mask_adds(g) if g.constant(n.input[i]) is not None])
    if found is None:
        return None
    node, i = found
    node.input[i] = g.add_constant(np.maximum(g.constant(node.input[i]), np.float32(-3.0)), node.input[i] + "__z")
    return planted(node)


def _causal(array):
    """Does it let every row see itself and what lies before it, and hide the rest?"""
    if array is None or array.ndim < 2 or array.shape[-1] != array.shape[-2] or array.shape[-1] < 8:
        return False
    seen = array if array.dtype == bool else (array > -1e4) if array.dtype == np.float32 else None
    return seen is not None and bool((seen == np.tril(np.ones(array.shape[-2:], bool))).all())


def _shifted(array, rng):
    """One step into the future, or a window that forgets the far past."""
    size = array.shape[-1]
    seen = np.tril(np.ones((size, size), bool), 1) if rng.integers(2) else np.tril(np.ones((size, size), bool)) & np.triu(np.ones((size, size), bool), -(size // 2))
    seen = np.broadcast_to(seen, array.shape)
    return seen.copy() if array.dtype == bool else np.where(seen, np.float32(0), np.float32(array.min()))


@fault("mask")
def mask_off_by_one(g, rng):
    """The causal border is one step off, or the window is too short."""
    sites = [(n, i) for n in g.nodes for i, name in enumerate(n.input) if _causal(g.constant(name))]
    compares = [n for n in g.of("LessOrEqual", "GreaterOrEqual") if _causal(g.value(n.output[0]))]
    found = pick(rng, sites + [(n, None) for n in compares])
    if found is None:
        return None
    node, i = found
    if i is not None:
        node.input[i] = g.add_constant(_shifted(g.constant(node.input[i]), rng), node.input[i] + "__z")
    else:
        # queries one place later than they are
        j = 1 if node.op_type == "LessOrEqual" else 0
        later = g.add_constant(np.asarray(1, g.value(node.input[j]).dtype), node.output[0] + "__one")
        moved = g.insert(node, "Add", [node.input[j], later], node.output[0] + "__moved")
        node.input[j] = moved.output[0]
        return planted(moved, node)
    return planted(node)


@fault("mask")
def padding_shift(g, rng):
    """The padding mask is read one place too far left, so that the first padded place is seen."""
    inputs = {i.name for i in g.model.graph.input}
    sites = [n for n in g.of("Cast") if n.input[0] in inputs and "mask" in n.input[0] and np.any(np.diff(g.values[n.output[0]].astype(np.int8), axis=-1))]
    node = pick(rng, sites)
    if node is None:
        return None
    length = g.shape(node.output[0])[-1]
    index = g.add_constant(np.maximum(np.arange(length) - 1, 0).astype(np.int64), node.output[0] + "__left")
    out = g.rename_output(node, 0, g.fresh(node.output[0] + "__right"))
    moved = g.insert_after(node, "Gather", [node.output[0], index], out + "__moved", output=out, axis=len(g.shape(out)) - 1)
    return planted(node, moved)
