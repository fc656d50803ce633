"""What converters for phones and fused kernels make of common layers without changing what they compute. Sixth set."""
import numpy as np

from ..graph import attribute, set_attribute
from .lowered import _become, _ints
from .registry import rewrite, some


@rewrite
def rotation_as_product(g, rng):
    """Halves exchanged and one of them negated by a product with a matrix of signs."""
    changed = False
    for n in some(rng, (n for n in g.of("Neg") if g.computed(n.output[0])), 4):
        for cat in g.consumers(n.output[0]):
            other = g.producer(cat.input[1]) if cat.op_type == "Concat" and len(cat.input) == 2 and cat.input[0] == n.output[0] else None
            half = g.producer(n.input[0])
            if other is None or half is None or half.input[0] != other.input[0] or {half.op_type, other.op_type} - {"Slice", "Split"}:
                continue
            x = half.input[0]
            shape = g.shape(x)
            if shape is None or g.shape(cat.output[0]) != shape or shape[-1] % 2 or not np.array_equal(g.value(cat.output[0])[..., shape[-1] // 2:], g.value(x)[..., :shape[-1] // 2]):
                continue
            width = shape[-1] // 2
            turn = np.zeros((2 * width, 2 * width), np.float32)
            turn[np.arange(width) + width, np.arange(width)] = -1
            turn[np.arange(width), np.arange(width) + width] = 1
            _become(cat, "MatMul", [x, g.add_constant(turn, cat.output[0] + "__turn")])
            changed = True
    return changed


@rewrite
def mask_behind_exponential(g, rng):
    """A softmax spelled out that sets what is hidden to nought behind the exponential, the largest score taken over all."""
    changed = False
    for s in some(rng, (s for s in g.of("Softmax") if attribute(s, "axis", -1) in (-1, len(g.shape(s.input[0]) or ()) - 1)), 3):
        n = g.producer(s.input[0])
        if n is None or n.op_type != "Add":
            continue
        k = next((k for k, i in enumerate(n.input) if (v := g.value(i)) is not None and v.size > 1 and v.min() < -1e4 and ((v == 0) | (v < -1e4)).all() and (v == 0).any(-1).all()), None)
        if k is None or not g.computed(n.input[1 - k]) or np.abs(g.value(n.input[1 - k])).max() > 30:
            continue
        stem, x, mask = s.output[0] + "__seen", n.input[1 - k], n.input[k]
        seen = g.insert(s, "Cast", [g.insert(s, "Equal", [mask, g.add_constant(np.float32(0), stem)], stem).output[0]], stem, to=1).output[0]
        top = g.insert_reduce(s, "ReduceMax", x, [-1], stem).output[0]
        power = g.insert(s, "Mul", [g.insert(s, "Exp", [g.insert(s, "Sub", [x, top], stem).output[0]], stem).output[0], seen], stem).output[0]
        _become(s, "Div", [power, g.insert_reduce(s, "ReduceSum", power, [-1], stem + "_s").output[0]])
        changed = True
    return changed


@rewrite
def kernel_bias_apart(g, rng):
    """The bias of a convolution as an addition behind it."""
    sites = some(rng, (n for n in g.of("Conv") if len(n.input) > 2 and g.constant(n.input[2]) is not None), 4)
    for n in sites:
        bias = g.constant(n.input[2])
        out = g.rename_output(n, 0, g.fresh(n.output[0] + "__bare"))
        g.insert_after(n, "Add", [n.output[0], g.add_constant(bias.reshape(-1, *[1] * (len(g.shape(out)) - 2)), out + "__bias")], out + "__late", output=out)
        del n.input[2]
    return bool(sites)


@rewrite
def joined_in_twos(g, rng):
    """Three or more pieces joined two at a time."""
    sites = some(rng, (n for n in g.of("Concat") if g.computed(n.output[0]) and len(n.input) > 2), 3)
    for n in sites:
        axis, stem, whole = attribute(n, "axis"), n.output[0] + "__two", n.input[0]
        for piece in list(n.input)[1:-1]:
            whole = g.insert(n, "Concat", [whole, piece], stem, axis=axis).output[0]
        _become(n, "Concat", [whole, n.input[len(n.input) - 1]], axis=axis)
    return bool(sites)


@rewrite
def pool_by_rows_and_columns(g, rng):
    """The largest of a square as the largest of its rows' largest."""
    sites = some(rng, (n for n in g.of("MaxPool") if len(n.output) == 1 and len(attribute(n, "kernel_shape")) == 2 and not attribute(n, "ceil_mode", 0) and set(attribute(n, "dilations", [1])) == {1}), 3)
    for n in sites:
        (h, w), (sh, sw) = attribute(n, "kernel_shape"), attribute(n, "strides", [1, 1])
        top, left, bottom, right = attribute(n, "pads", [0, 0, 0, 0])
        first = g.insert(n, "MaxPool", [n.input[0]], n.output[0] + "__rows", kernel_shape=[1, w], strides=[1, sw], pads=[0, left, 0, right])
        _become(n, "MaxPool", [first.output[0]], kernel_shape=[h, 1], strides=[sh, 1], pads=[top, 0, bottom, 0])
    return bool(sites)


@rewrite
def adapter_apart(g, rng):
    """Part of a weight kept as two thin matrices whose result is added."""
    sites = some(rng, (n for n in g.of("MatMul") if (w := g.constant(n.input[1])) is not None and w.ndim == 2 and min(w.shape) >= 8 and w.dtype == np.float32 and g.computed(n.output[0])), 3)
    for n in sites:
        w, stem = g.constant(n.input[1]), n.output[0] + "__thin"
        down, up = (rng.standard_normal(s).astype(np.float32) * np.float32(0.1) for s in ((w.shape[0], 4), (4, w.shape[1])))
        main = g.insert(n, "MatMul", [n.input[0], g.add_constant((w - down.astype(np.float64) @ up).astype(np.float32), stem)], stem)
        thin = g.insert(n, "MatMul", [n.input[0], g.add_constant(down, stem)], stem)
        _become(n, "Add", [main.output[0], g.insert(n, "MatMul", [thin.output[0], g.add_constant(up, stem)], stem).output[0]])
    return bool(sites)


@rewrite
def scores_by_einsum(g, rng):
    """Scores straight from (batch, place, head, feature), without moving the heads to the front."""
    changed = False
    for n in some(rng, (n for n in g.of("MatMul") if all(len(g.shape(i) or ()) == 4 for i in n.input)), 4):
        q, k = (g.producer(i) for i in n.input)
        if q is None or k is None or {q.op_type, k.op_type} != {"Transpose"} or list(attribute(q, "perm")) != [0, 2, 1, 3] or list(attribute(k, "perm")) != [0, 2, 3, 1] or g.shape(q.input[0])[0] != g.shape(k.input[0])[0]:
            continue
        _become(n, "Einsum", [q.input[0], k.input[0]], equation="bqhd,bkhd->bhqk")
        changed = True
    return changed


@rewrite
def instance_norm_expanded(g, rng):
    sites = some(rng, (n for n in g.of("InstanceNormalization") if g.computed(n.output[0]) and all(g.constant(i) is not None for i in n.input[1:])), 3)
    for n in sites:
        x, stem, rank = n.input[0], n.output[0] + "__words", len(g.shape(n.input[0]))
        axes = list(range(2, rank))
        gain, shift = (g.add_constant(g.constant(i).reshape(1, -1, *[1] * len(axes)), stem) for i in n.input[1:3])
        less = g.insert(n, "Sub", [x, g.insert_reduce(n, "ReduceMean", x, axes, stem).output[0]], stem).output[0]
        var = g.insert_reduce(n, "ReduceMean", g.insert(n, "Mul", [less, less], stem).output[0], axes, stem + "_v").output[0]
        root = g.insert(n, "Sqrt", [g.insert(n, "Add", [var, g.add_constant(np.float32(attribute(n, "epsilon", 1e-5)), stem)], stem).output[0]], stem).output[0]
        _become(n, "Add", [g.insert(n, "Mul", [g.insert(n, "Div", [less, root], stem).output[0], gain], stem).output[0], shift])
    return bool(sites)


@rewrite
def directions_apart(g, rng):
    """A recurrent layer of two directions as two of one, joined."""
    changed = False
    for n in some(rng, (n for n in g.of("LSTM", "GRU") if attribute(n, "direction", b"") == b"bidirectional" and not any(n.output[1:])), 2):
        if any(i and g.constant(i) is None for i in n.input[1:]) or len(n.input) > 4 and n.input[4]:
            continue
        stem, parts = n.output[0] + "__one", []
        for k, direction in enumerate(("forward", "reverse")):
            inputs = [n.input[0], *(g.add_constant(g.constant(i)[k:k + 1], stem) if i else "" for i in list(n.input)[1:])]
            settings = {a: attribute(n, a) for a in ("hidden_size", "linear_before_reset") if attribute(n, a) is not None}
            parts.append(g.insert(n, n.op_type, inputs, stem, direction=direction, **settings).output[0])
        set_attribute(n, "direction", None)
        _become(n, "Concat", parts, axis=1)
        changed = True
    return changed
