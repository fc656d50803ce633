"""Harmless rewrites of the fourth set: what kernel writers do to layers that everybody has."""
import numpy as np

from ..graph import attribute
from .lowered import _become, _ints
from .registry import rewrite, some
from .respelled import _kernel


def _heads(g):
    """Products of queries and keys."""
    return [n for n in g.of("MatMul") if all(g.computed(i) and len(g.shape(i)) == 4 for i in n.input)]


def _c(g, v, stem):
    return g.add_constant(np.float32(v), stem)


@rewrite
def roots_on_both(g, rng):
    """The factor of the scores as its root on queries and on keys."""
    changed = False
    for n in some(rng, [n for n in _heads(g) if len(r := g.consumers(n.output[0])) == 1 and r[0].op_type == "Mul" and any((g.scalar(i) or 0) > 0 for i in r[0].input)], 2):
        r, stem = g.consumers(n.output[0])[0], n.output[0] + "__root"
        factor = next(g.scalar(i) for i in r.input if g.scalar(i) is not None)
        for k in (0, 1):
            n.input[k] = g.insert(n, "Mul", [n.input[k], _c(g, factor ** 0.5, stem)], stem).output[0]
        _become(r, "Identity", [n.output[0]])
        changed = True
    return changed


@rewrite
def norm_by_length(g, rng):
    """The root of a mean of squares as the length over the root of the count."""
    changed = False
    for n in some(rng, (n for n in g.of("Pow") if g.scalar(n.input[1]) == 2.0 and g.computed(n.output[0]) and len(r := g.consumers(n.output[0])) == 1 and r[0].op_type == "ReduceMean" and attribute(r[0], "keepdims", 1)
                        and g.value(r[0].output[0]).size * g.shape(n.output[0])[-1] == g.value(n.output[0]).size), 2):
        r, stem, size = g.consumers(n.output[0])[0], n.output[0] + "__length", g.shape(n.output[0])[-1]
        length = g.insert_reduce(r, "ReduceL2", n.input[0], [-1], stem).output[0]
        less = g.insert(r, "Div", [length, _c(g, size ** 0.5, stem)], stem).output[0]
        _become(r, "Mul", [less, less])
        g.remove(n)
        changed = True
    return changed


@rewrite
def softmax_base_two(g, rng):
    changed = False
    for n in some(rng, (n for n in g.of("Softmax") if g.computed(n.output[0]) and attribute(n, "axis", -1) in (-1, len(g.shape(n.input[0])) - 1) and np.abs(g.value(n.input[0])).max() < 1e3), 2):
        stem = n.output[0] + "__two"
        x = g.insert(n, "Mul", [n.input[0], _c(g, np.log2(np.e), stem)], stem).output[0]
        less = g.insert(n, "Sub", [x, g.insert_reduce(n, "ReduceMax", x, [-1], stem).output[0]], stem).output[0]
        power = g.insert(n, "Pow", [_c(g, 2, stem), less], stem).output[0]
        _become(n, "Div", [power, g.insert_reduce(n, "ReduceSum", power, [-1], stem).output[0]])
        changed = True
    return changed


@rewrite
def tanh_by_exp(g, rng):
    """1 - 2 / (exp(2 x) + 1)."""
    changed = False
    for n in some(rng, (n for n in g.of("Tanh") if g.computed(n.output[0]) and np.abs(g.value(n.input[0])).max() < 20), 2):
        stem = n.output[0] + "__exp"
        e = g.insert(n, "Exp", [g.insert(n, "Mul", [n.input[0], _c(g, 2, stem)], stem).output[0]], stem).output[0]
        part = g.insert(n, "Div", [_c(g, 2, stem), g.insert(n, "Add", [e, _c(g, 1, stem)], stem).output[0]], stem).output[0]
        _become(n, "Sub", [_c(g, 1, stem), part])
        changed = True
    return changed


@rewrite
def heads_padded(g, rng):
    """The inner axis of a product made longer by noughts on both sides."""
    sites = some(rng, _heads(g), 2)
    for n in sites:
        for k, axis in ((0, 3), (1, 2)):
            pads = [0] * 8
            pads[4 + axis] = 4
            n.input[k] = g.insert(n, "Pad", [n.input[k], _ints(g, pads, n.output[0] + "__pads")], n.output[0] + "__padded").output[0]
    return bool(sites)


@rewrite
def channels_padded(g, rng):
    """Output channels up to a multiple of sixteen, cut off again."""
    changed = False
    for n in some(rng, (n for n in g.of("Conv", "MatMul") if _kernel(g, n) is not None and g.constant(n.input[1]).dtype == np.float32 and (n.op_type == "MatMul" and _kernel(g, n).ndim == 2 or attribute(n, "group", 1) == 1)), 3):
        w, stem = g.constant(n.input[1]), n.output[0] + "__wide"
        axis, out_axis = (1, len(g.shape(n.output[0])) - 1) if n.op_type == "MatMul" else (0, 1)
        size = w.shape[axis]
        more = 16 - size % 16
        pad = [(0, more if a == axis else 0) for a in range(w.ndim)]
        n.input[1] = g.add_constant(np.pad(w, pad), stem)
        if n.op_type == "Conv" and len(n.input) > 2:
            if g.constant(n.input[2]) is None:
                continue
            n.input[2] = g.add_constant(np.pad(g.constant(n.input[2]), (0, more)), stem)
        out = g.rename_output(n, 0, g.fresh(stem + "_out"))
        g.insert_after(n, "Slice", [n.output[0], _ints(g, 0, stem), _ints(g, size, stem), _ints(g, out_axis, stem)], stem, output=out)
        changed = True
    return changed


@rewrite
def scaled_and_back(g, rng):
    """Four times what goes into a product, a quarter of what comes out."""
    sites = some(rng, (n for n in g.of("MatMul") if g.computed(n.output[0]) and g.computed(n.input[0]) and not g.is_output(n.output[0])), 3)
    for n in sites:
        stem = n.output[0] + "__four"
        n.input[0] = g.insert(n, "Mul", [n.input[0], _c(g, 4, stem)], stem).output[0]
        out = g.rename_output(n, 0, g.fresh(stem + "_out"))
        g.insert_after(n, "Mul", [n.output[0], _c(g, 0.25, stem)], stem, output=out)
    return bool(sites)


@rewrite
def condition_negated(g, rng):
    sites = some(rng, (n for n in g.of("Where") if n.output[0] in g.live), 3)
    for n in sites:
        stem = n.output[0] + "__not"
        _become(n, "Where", [g.insert(n, "Not", [n.input[0]], stem).output[0], n.input[2], n.input[1]])
    return bool(sites)


@rewrite
def comparison_turned(g, rng):
    turned = {"Less": "Greater", "Greater": "Less", "LessOrEqual": "GreaterOrEqual", "GreaterOrEqual": "LessOrEqual"}
    sites = some(rng, g.of(*turned), 3)
    for n in sites:
        _become(n, turned[n.op_type], [n.input[1], n.input[0]])
    return bool(sites)


@rewrite
def reduce_in_steps(g, rng):
    """A mean over a picture as the mean of the means of its rows."""
    changed = False
    for n in some(rng, (n for n in g.of("GlobalAveragePool") if g.computed(n.output[0]) and len(g.shape(n.input[0])) == 4), 3):
        rows = g.insert_reduce(n, "ReduceMean", n.input[0], [3], n.output[0] + "__rows").output[0]
        made = g.insert_reduce(n, "ReduceMean", rows, [2], n.output[0] + "__all").output[0]
        _become(n, "Identity", [made])
        changed = True
    return changed


@rewrite
def product_by_sum(g, rng):
    """A product of matrices as products of numbers and a sum."""
    sites = some(rng, (n for n in g.of("MatMul") if g.computed(n.output[0]) and all(g.shape(i) is not None and len(g.shape(i)) >= 2 for i in n.input) and g.value(n.output[0]).size * g.shape(n.input[0])[-1] < 3e5), 1)
    for n in sites:
        stem = n.output[0] + "__sum"
        a = g.insert(n, "Unsqueeze", [n.input[0], _ints(g, [-1], stem)], stem).output[0]
        b = g.insert(n, "Unsqueeze", [n.input[1], _ints(g, [-3], stem)], stem).output[0]
        both = g.insert(n, "Mul", [a, b], stem).output[0]
        if g.opset < 13:
            return False
        _become(n, "ReduceSum", [both, _ints(g, [-2], stem)], keepdims=0)
    return bool(sites)


@rewrite
def windows_as_columns(g, rng):
    """A convolution as one product with the columns of all windows."""
    changed = False
    for n in some(rng, (n for n in g.of("Conv") if (w := _kernel(g, n)) is not None and w.ndim == 4 and attribute(n, "group", 1) == 1 and max(w.shape[2:]) > 1 and attribute(n, "auto_pad", b"NOTSET") == b"NOTSET"
                        and g.value(n.output[0]).size * w[0].size < 4e6), 1):
        w, stem, x = g.constant(n.input[1]), n.output[0] + "__columns", n.input[0]
        pads, steps, gaps = attribute(n, "pads", [0] * 4), attribute(n, "strides", [1, 1]), attribute(n, "dilations", [1, 1])
        b, _, h, v = g.shape(n.output[0])
        x = g.insert(n, "Pad", [x, _ints(g, [0, 0, *pads[:2], 0, 0, *pads[2:]], stem)], stem).output[0]
        for axis, (size, k) in enumerate(zip((h, v), w.shape[2:])):
            places = np.arange(k)[:, None] * gaps[axis] + np.arange(size)[None] * steps[axis]
            x = g.insert(n, "Gather", [x, g.add_constant(places.astype(np.int64), stem)], stem, axis=2 + 2 * axis).output[0]
        x = g.insert(n, "Transpose", [x], stem, perm=[0, 1, 2, 4, 3, 5]).output[0]
        x = g.insert(n, "Reshape", [x, _ints(g, [b, w[0].size, h * v], stem)], stem).output[0]
        y = g.insert(n, "MatMul", [g.add_constant(w.reshape(w.shape[0], -1), stem), x], stem).output[0]
        if len(n.input) > 2:
            y = g.insert(n, "Add", [y, g.insert(n, "Unsqueeze", [n.input[2], _ints(g, [1], stem)], stem).output[0]], stem).output[0]
        _become(n, "Reshape", [y, _ints(g, [b, w.shape[0], h, v], stem)])
        changed = True
    return changed


@rewrite
def leaky_by_maximum(g, rng):
    """A function that bends once as the larger of x and a x; PReLU by its two halves."""
    changed = False
    for n in some(rng, (n for n in g.of("LeakyRelu", "PRelu") if g.computed(n.output[0])), 2):
        stem = n.output[0] + "__most"
        slope = _c(g, attribute(n, "alpha", 0.01), stem) if n.op_type == "LeakyRelu" else n.input[1]
        low = g.insert(n, "Mul", [g.insert(n, "Min", [n.input[0], _c(g, 0, stem)], stem).output[0], slope], stem).output[0]
        _become(n, "Add", [g.insert(n, "Relu", [n.input[0]], stem).output[0], low])
        changed = True
    return changed


@rewrite
def sums_at_once(g, rng):
    """Two additions as one sum of three."""
    changed = False
    for n in some(rng, (n for n in g.of("Add") if g.computed(n.output[0]) and (p := g.producer(n.input[0])) is not None and p.op_type == "Add" and len(g.consumers(p.output[0])) == 1 and not g.is_output(p.output[0])), 3):
        p = g.producer(n.input[0])
        if p is None or p.op_type != "Add":
            continue
        _become(n, "Sum", [*p.input, n.input[1]])
        changed = True
    return changed
