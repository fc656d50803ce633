"""What public reports of wrong conversions, fused kernels, packed weights and ported checkpoints tell of, where no earlier set has it. Sixth set."""
import numpy as np
from onnx import TensorProto

from ..benign.lowered import _become, _ints
from ..graph import attribute, set_attribute
from .again_paths import _frequencies
from .again_layers import _reached
from .deployed import _gates, _read_otherwise, _rounded
from .kernels import _all_of, _bordered, _had, _rows_first, _store
from .numeric import _chain
from .positions import _retable, _tables
from .registry import fault, pick, planted
from .spellings import _behind, _scores
from .weights import _biases, _heads, _replace, _weights


def _turns(g):
    """Rotations whose two tables hold places, counted from nought, times frequencies: (rotation, tables, frequencies)."""
    for found, tables in _tables(g):
        (m_cos, i), (m_sin, j) = tables
        cos, sin = (g.value(m.input[k]).astype(np.float64) for m, k in tables)
        if cos.shape != sin.shape or cos.ndim < 2 or cos.shape[-2] < 4:
            continue
        speed = np.arctan2(sin, cos).reshape(-1, *cos.shape[-2:])[0, 1]
        if (speed > 0).all() and np.abs(np.cos(np.arange(cos.shape[-2])[:, None] * speed) - cos).max() < 1e-3:
            yield found, tables, speed


def _turned_at(g, rng, change):
    """Query or key of one layer turned by other frequencies."""
    site = pick(rng, _turns(g))
    if site is None:
        return None
    found, tables, speed = site
    return _retable(g, [(found, tables)], lambda place, _: place * change(speed))


@fault("rope")
def frequency_shift(g, rng):
    """Frequencies that fall to the full base at the last of them: i / (n - 1) in the exponent where i / n is meant."""
    waves = [(n, i, c) for n, i, c in _frequencies(g) if n.op_type == "Mul" and c.size >= 4 and c.min() > 0 and abs(c.max() - 1) < 1e-3]
    if waves and (rng.integers(2) or not list(_turns(g))):
        node, i, c = pick(rng, waves)
        node.input[i] = g.add_constant((c ** (c.size / (c.size - 1))).astype(np.float32), node.input[i] + "__z")
        return planted(node)
    return _turned_at(g, rng, lambda s: s ** (s.size / (s.size - 2)) if s.size > 4 else s)


@fault("rope")
def low_frequencies_stretched(g, rng):
    """The slow half of the frequencies eight times slower, as with a table for longer contexts that the other side does not know."""
    return _turned_at(g, rng, lambda s: np.where(s < np.median(s), s / 8, s))


@fault("rope")
def slopes_of_more_heads(g, rng):
    """Slopes of the scores by distance as for twice as many heads."""
    sites = []
    for n in g.of("Mul"):
        for i, name in enumerate(n.input):
            c = g.value(name)
            if name not in g.live and c is not None and c.dtype == np.float32 and c.size in (4, 8) and c.min() > 0 and c.max() < 1 and np.ptp(c.reshape(-1)[1:] / c.reshape(-1)[:-1]) < 1e-4 and _reached(g, n.output[0], ("Softmax",), 6):
                sites.append((n, i, c))
    found = pick(rng, sites)
    if found is None:
        return None
    node, i, c = found
    node.input[i] = g.add_constant(np.sqrt(c), node.input[i] + "__z")
    return planted(node)


@fault("rope")
def positions_dropped(g, rng):
    """What says where a token stands is not added."""
    sites = []
    for n in g.of("Add"):
        for k, name in enumerate(n.input):
            c, x = g.value(name), g.value(n.input[1 - k])
            if name not in g.live and n.input[1 - k] in g.live and c is not None and x is not None and c.ndim in (2, 3) and x.ndim == 3 and c.shape[-2:] == x.shape[-2:] and c.shape[-2] > 4 and c.size == c.shape[-1] * c.shape[-2] and np.ptp(c, axis=-2).max() > 0.1:
                sites.append((n, n.input[1 - k]))
    found = pick(rng, sites)
    if found is None:
        return None
    _become(found[0], "Identity", [found[1]])
    return planted(found[0])


def _hide(g, node, hidden):
    added = g.insert(node, "Add", [node.input[0], g.add_constant(np.where(hidden, np.float32(-1e9), np.float32(0)), node.output[0] + "__hidden")], node.output[0] + "__hide")
    node.input[0] = added.output[0]
    return planted(added, node, outputs=[added.output[0], node.output[0]])


@fault("mask")
def window_added(g, rng):
    """A layer that sees all before it gets the window of its neighbours."""
    found = pick(rng, _scores(g))
    if found is None:
        return None
    node, rows, columns = found
    i, j = np.mgrid[:rows, :columns]
    return _hide(g, node, np.abs(i - j) > 3)


@fault("mask")
def first_key_hidden(g, rng):
    """The first key, on which much of the attention rests, has left the cache."""
    found = pick(rng, _scores(g))
    if found is None:
        return None
    node, rows, columns = found
    i, j = np.mgrid[:rows, :columns]
    return _hide(g, node, (j == 0) & (i > 0))


@fault("normalisation")
def norm_over_two_axes(g, rng):
    """Mean and variance of a layer norm over places and features together."""
    node = pick(rng, (n for n in g.of("LayerNormalization") if len(g.shape(n.input[0])) == 3 and g.shape(n.input[0])[1] > 2 and len(n.input) > 2))
    if node is None:
        return None
    had = _had(g)
    x, stem = node.input[0], node.output[0] + "__both"
    less = g.insert(node, "Sub", [x, g.insert_reduce(node, "ReduceMean", x, [1, 2], stem).output[0]], stem).output[0]
    var = g.insert_reduce(node, "ReduceMean", g.insert(node, "Mul", [less, less], stem).output[0], [1, 2], stem + "_v").output[0]
    safe = g.insert(node, "Add", [var, g.add_constant(np.float32(attribute(node, "epsilon", 1e-5)), stem + "_eps")], stem).output[0]
    unit = g.insert(node, "Div", [less, g.insert(node, "Sqrt", [safe], stem).output[0]], stem).output[0]
    _become(node, "Add", [g.insert(node, "Mul", [unit, node.input[1]], stem).output[0], node.input[2]])
    return _all_of(g, had, node)


@fault("normalisation")
def rms_for_layer(g, rng):
    """The mean is not taken off, neither before nor inside the variance."""
    node = pick(rng, (n for n in g.of("LayerNormalization") if len(n.input) > 2))
    if node is None:
        return None
    had = _had(g)
    x, stem = node.input[0], node.output[0] + "__rms"
    var = g.insert_reduce(node, "ReduceMean", g.insert(node, "Mul", [x, x], stem).output[0], [-1], stem).output[0]
    safe = g.insert(node, "Add", [var, g.add_constant(np.float32(attribute(node, "epsilon", 1e-5)), stem + "_eps")], stem).output[0]
    unit = g.insert(node, "Div", [x, g.insert(node, "Sqrt", [safe], stem).output[0]], stem).output[0]
    _become(node, "Add", [g.insert(node, "Mul", [unit, node.input[1]], stem).output[0], node.input[2]])
    return _all_of(g, had, node)


@fault("normalisation")
def norm_over_heads(g, rng):
    """The norm of queries or keys for each head taken over all heads at once."""
    sites = [n for n in g.of("ReduceMean") if g.computed(n.input[0]) and len(s := g.shape(n.input[0])) == 4 and g.shape(n.output[0]) == (*s[:3], 1) and (p := g.producer(n.input[0])) is not None and p.op_type in ("Mul", "Pow")
             and any(c.op_type == "Add" for c in g.consumers(n.output[0]))]
    node = pick(rng, sites)
    if node is None:
        return None
    made = next((p.op_type for a in g.ancestors(node.input[0], 4) if (p := g.producer(a)) is not None and p.op_type in ("Reshape", "Transpose")), None)
    axes = [1, 3] if made == "Transpose" else [2, 3]
    if g.opset < 18:
        set_attribute(node, "axes", axes)
    else:
        node.input[1] = _ints(g, axes, node.output[0] + "__axes")
    return planted(node)


@fault("normalisation")
def deviation_stored(g, rng):
    """Standard deviations stored where variances are read."""
    node = pick(rng, (n for n in g.of("BatchNormalization") if g.constant(n.input[4]) is not None))
    if node is None:
        return None
    node.input[4] = g.add_constant(np.sqrt(g.constant(node.input[4])), node.input[4] + "__z")
    return planted(node)


@fault("weight_layout")
def gate_up_interleaved(g, rng):
    """Gate and value of one matrix kept as neighbours, where its result is cut in the middle."""
    sites = []
    for n, i, w in _weights(g):
        value = n.output[0]
        after = next((c for c in g.consumers(value) if c.op_type == "Add" and any(g.constant(k) is not None for k in c.input)), None)
        readers = g.consumers(value) + (g.consumers(after.output[0]) if after is not None else [])
        halves = [c for c in readers if c.op_type in ("Split", "Slice") and g.shape(c.output[0]) is not None and 2 * g.shape(c.output[0])[-1] == g.shape(value)[-1]]
        if w.ndim == 2 and halves and _rows_first(n, w).shape[0] % 2 == 0:
            sites.append((n, i, w))
    found = pick(rng, sites)
    if found is None:
        return None
    node, i, w = found
    rows = _rows_first(node, w)
    return _store(g, node, i, w, rows.reshape(2, -1, rows.shape[1]).swapaxes(0, 1).reshape(rows.shape))


@fault("weight_layout")
def packed_in_eights(g, rng):
    """Eight outputs in one word, even ones first, unpacked in plain order."""
    return _read_otherwise(g, rng, 128, lambda w: w.shape[0] % 8 == 0, lambda w: w.reshape(-1, 8, w.shape[1])[:, [0, 2, 4, 6, 1, 3, 5, 7]])


@fault("weight_layout")
def queries_grouped(g, rng):
    """Heads of queries kept with the key they share, read as if they were counted through."""
    found = pick(rng, [(n, i, w, h) for n, i, w in _weights(g) if n.op_type == "MatMul" and i == 1 and w.ndim == 2 and (h := _heads(g, n)) and h >= 4 and h % 2 == 0])
    if found is None:
        return None
    node, i, w, heads = found
    order = np.arange(heads).reshape(2, -1).T.reshape(-1)
    return _replace(g, node, i, w.reshape(w.shape[0], heads, -1)[:, order].reshape(w.shape))


@fault("weight_layout")
def kernel_one_axis(g, rng):
    """A kernel mirrored along its last axis only."""
    found = pick(rng, [(n, i, w) for n, i, w in _weights(g) if "Conv" in n.op_type and w.ndim == 4 and w.shape[-1] > 1])
    return None if found is None else _replace(g, *found[:2], found[2][..., ::-1])


@fault("weight_value")
def rows_normalised(g, rng):
    """Directions without their lengths: the gain of a weight norm never multiplied in."""
    found = pick(rng, [(n, i, w) for n, i, w in _weights(g) if w.size >= 64 and w.ndim <= 4 and n.op_type in ("MatMul", "Gemm", "Conv")])
    if found is None:
        return None
    node, i, w = found
    rows = _rows_first(node, w)
    flat = rows.reshape(rows.shape[0], -1)
    return _store(g, node, i, w, (flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)).reshape(rows.shape))


@fault("weight_value")
def tap_missing(g, rng):
    """A kernel for windows one narrower: the first place of each is not multiplied."""
    found = pick(rng, [(n, i, w) for n, i, w in _weights(g) if n.op_type == "Conv" and w.shape[-1] >= 3])
    if found is None:
        return None
    node, i, w = found
    less = w.copy()
    less[..., 0] = 0
    return _replace(g, node, i, less)


@fault("bias")
def bias_not_folded(g, rng):
    """A norm multiplied into the weight in front of it and not into the bias."""
    found = pick(rng, [(n, i, b) for n, i, b in _biases(g) if np.abs(b).max() > 1e-3])
    if found is None:
        return None
    node, i, b = found
    return _replace(g, node, i, b * np.exp(0.5 * rng.standard_normal(b.shape)))


def _on_grid(change):
    """A matrix on a grid of its own, row by row."""
    def make(g, rng):
        found = pick(rng, [(n, i, w) for n, i, w in _weights(g) if w.ndim == 2 and w.size >= 64])
        if found is None:
            return None
        node, i, w = found
        return _store(g, node, i, w, change(_rows_first(node, w)))
    return make


@fault("quantisation")
def weight_zero_plus_one(g, rng):
    """Four bits whose zero points are stored one too low and not put right."""
    def change(rows):
        step = (rows.max(1, keepdims=True) - rows.min(1, keepdims=True)) / 15
        zero = np.round(-rows.min(1, keepdims=True) / step)
        return (np.clip(np.round(rows / step) + zero, 0, 15) - zero - 1) * step
    return _on_grid(change)(g, rng)


@fault("quantisation")
def weight_truncated(g, rng):
    """Eight bits by cutting off instead of rounding."""
    def change(rows):
        step = np.abs(rows).max(1, keepdims=True) / 127
        return np.trunc(rows / step) * step
    return _on_grid(change)(g, rng)


@fault("quantisation")
def negatives_cut(g, rng):
    """Unsigned bytes without a zero point for values of both signs."""
    node = pick(rng, (n for n in g.of("MatMul", "Gemm", "Conv") if g.computed(n.input[0]) and g.constant(n.input[1]) is not None and g.value(n.input[0]).min() < 0 < g.value(n.input[0]).max()))
    if node is None:
        return None
    had = _had(g)
    stem = node.output[0] + "__byte"
    step, zero = g.add_constant(np.float32(g.value(node.input[0]).max() / 255), stem), g.add_constant(np.uint8(0), stem)
    few = g.insert(node, "QuantizeLinear", [node.input[0], step, zero], stem)
    many = g.insert(node, "DequantizeLinear", [few.output[0], step, zero], stem)
    node.input[0] = many.output[0]
    return _all_of(g, had, node, outputs=[few.output[0], many.output[0], node.output[0]])


@fault("activation")
def hard_swish(g, rng):
    """x clip(x / 6 + 1/2, 0, 1) where x sigmoid(x) is meant."""
    found = pick(rng, _gates(g))
    if found is None:
        return None
    had = _had(g)
    node, _, x = found
    hard = g.insert(node, "HardSigmoid", [x], node.output[0] + "__hard", alpha=1 / 6, beta=0.5)
    _become(node, "Mul", [x, hard.output[0]])
    return _all_of(g, had, node)


@fault("activation")
def hard_sigmoid_slope(g, rng):
    """The other of the two slopes that go by the name of a hard sigmoid: a fifth and a sixth."""
    node = pick(rng, (n for n in g.of("HardSigmoid", "HardSwish") if g.computed(n.output[0])))
    if node is None:
        return None
    had = _had(g)
    if node.op_type == "HardSigmoid":
        set_attribute(node, "alpha", 0.2 if attribute(node, "alpha", 0.2) < 0.18 else 1 / 6)
        return planted(node)
    hard = g.insert(node, "HardSigmoid", [node.input[0]], node.output[0] + "__slope", alpha=0.2, beta=0.5)
    _become(node, "Mul", [node.input[0], hard.output[0]])
    return _all_of(g, had, node)


@fault("activation")
def square_added(g, rng):
    """A squared ReLU where a plain one is meant."""
    node = pick(rng, (n for n in g.of("Relu") if g.computed(n.output[0]) and not g.is_output(n.output[0])))
    if node is None:
        return None
    made, late = _behind(g, node.output[0], node.output[0] + "__square", "Mul", [])
    late.input.append(late.input[0])
    return planted(made, late, outputs=[made.output[0], late.output[0]])


@fault("precision")
def logits_in_bfloat(g, rng):
    """What the last product gives is handed out in brain floats."""
    ends = {a for o in g.model.graph.output for a in [o.name, *g.ancestors(o.name, 6)]}
    node = pick(rng, (n for n in g.of("MatMul", "Gemm") if n.output[0] in ends and g.computed(n.output[0]) and not g.is_output(n.output[0])))
    return None if node is None else _chain(g, node, [("Cast", [], {"to": TensorProto.BFLOAT16}), ("Cast", [], {"to": TensorProto.FLOAT})])


@fault("accumulation")
def mean_in_half(g, rng):
    """A mean whose running sum is kept in half precision."""
    sites = [n for n in g.of("ReduceMean") if g.computed(n.input[0]) and g.shape(n.output[0]) is not None and len(g.shape(n.output[0])) == len(g.shape(n.input[0]))
             and sum(a != b for a, b in zip(g.shape(n.input[0]), g.shape(n.output[0]))) == 1 and 8 <= g.value(n.input[0]).size // g.value(n.output[0]).size <= 48 and np.abs(g.value(n.input[0])).max() < 1e3]
    node = pick(rng, sites)
    if node is None:
        return None
    had = _had(g)
    x, stem, total = node.input[0], node.output[0] + "__sum", None
    axis = next(k for k, (a, b) in enumerate(zip(g.shape(x), g.shape(node.output[0]))) if a != b)
    for k in range(g.shape(x)[axis]):
        part = g.insert(node, "Slice", [x, _ints(g, k, stem), _ints(g, k + 1, stem), _ints(g, axis, stem)], stem).output[0]
        total = _rounded(g, node, part if total is None else g.insert(node, "Add", [total, part], stem).output[0], TensorProto.FLOAT16, stem)
    _become(node, "Div", [total, g.add_constant(np.float32(g.shape(x)[axis]), stem)])
    return _all_of(g, had, node, outputs=[total, node.output[0]])


@fault("axis")
def softmax_over_heads(g, rng):
    """Heads compete where keys are meant to."""
    node = pick(rng, (n for n in g.of("Softmax") if g.computed(n.output[0]) and len(s := g.shape(n.output[0])) == 4 and s[1] > 1 and attribute(n, "axis", -1) in (-1, 3)))
    if node is None:
        return None
    set_attribute(node, "axis", 1)
    return planted(node)


@fault("index")
def first_head_for_all(g, rng):
    """All heads read the keys or values of the first."""
    sites = [n for n in g.of("MatMul") if all(g.computed(i) and len(g.shape(i)) == 4 for i in n.input) and g.shape(n.input[0])[:2] == g.shape(n.input[1])[:2] and g.shape(n.input[1])[1] > 1]
    node = pick(rng, sites)
    if node is None:
        return None
    stem = node.output[0] + "__first"
    first = g.insert(node, "Gather", [node.input[1], _ints(g, [0], stem)], stem, axis=1)
    node.input[1] = first.output[0]
    return planted(first, node, outputs=[first.output[0], node.output[0]])


@fault("index")
def backward_left_turned(g, rng):
    """What the backward direction gives stays in the order in which it was computed."""
    node = pick(rng, (n for n in g.of("LSTM", "GRU") if attribute(n, "direction", b"") == b"bidirectional" and n.output[0] and g.computed(n.output[0])))
    if node is None:
        return None
    had = _had(g)
    stem, steps = node.output[0] + "__back", g.shape(node.output[0])[0]
    out = g.rename_output(node, 0, g.fresh(stem))
    front = g.insert_after(node, "Gather", [node.output[0], _ints(g, [0], stem)], stem, axis=1)
    back = g.insert_after(front, "Gather", [node.output[0], _ints(g, [1], stem)], stem, axis=1)
    turned = g.insert_after(back, "Gather", [back.output[0], _ints(g, range(steps - 1, -1, -1), stem)], stem, axis=0)
    g.insert_after(turned, "Concat", [front.output[0], turned.output[0]], stem, output=out, axis=1)
    return _all_of(g, had, node, outputs=[turned.output[0], out])


@fault("padding")
def grid_border(g, rng):
    """Outside of the picture its border where noughts are meant, or the other way round."""
    node = pick(rng, g.of("GridSample"))
    if node is None:
        return None
    set_attribute(node, "padding_mode", "border" if attribute(node, "padding_mode", b"zeros") == b"zeros" else "zeros")
    return planted(node)


@fault("padding")
def border_reflected(g, rng):
    """The border mirrors what lies beside it where noughts are meant."""
    found = pick(rng, [(n, p) for n, p in _bordered(g) if all(k < s for k, s in zip(p, g.shape(n.input[0])[2:]))])
    if found is None:
        return None
    node, pads = found
    more = g.insert(node, "Pad", [node.input[0], _ints(g, [0, 0, *pads, 0, 0, *pads], node.output[0] + "__mirror")], node.output[0] + "__mirror", mode="reflect")
    node.input[0] = more.output[0]
    set_attribute(node, "pads", [0] * 2 * len(pads))
    return planted(more, node, outputs=[more.output[0], node.output[0]])


@fault("mode")
def attention_dropout_left(g, rng):
    """A tenth of the weights of attention dropped and the rest made larger."""
    found = pick(rng, [s for s in _scores(g) if not g.is_output(s[0].output[0])])
    if found is None:
        return None
    value = found[0].output[0]
    kept = (rng.random(g.shape(value)) < 0.9).astype(np.float32) / np.float32(0.9)
    made, late = _behind(g, value, value + "__dropout", "Mul", [g.add_constant(kept, value + "__kept")])
    return planted(made, late, outputs=[made.output[0], late.output[0]])


@fault("operand_order")
def queries_keys_exchanged(g, rng):
    """Keys ask and queries answer."""
    sites = [m for m in g.of("MatMul") if all(g.computed(i) and len(g.shape(i)) >= 3 for i in m.input) and g.shape(m.output[0])[-1] == g.shape(m.output[0])[-2] and _reached(g, m.output[0], ("Softmax",), 4) and g.shape(m.input[0])[:-2] == g.shape(m.input[1])[:-2]]
    node = pick(rng, sites)
    if node is None:
        return None
    had = _had(g)
    stem, rank = node.output[0] + "__asked", len(g.shape(node.input[0]))
    turn = [*range(rank - 2), rank - 1, rank - 2]
    key, query = (g.insert(node, "Transpose", [node.input[k]], stem, perm=turn).output[0] for k in (1, 0))
    node.input[0], node.input[1] = key, query
    return _all_of(g, had, node, outputs=[key, query, node.output[0]])


@fault("scale")
def gate_doubled(g, rng):
    """Twice a sigmoid, which leaves things as they are at nought, where the plain one is meant."""
    own = {s.name for _, s, _ in _gates(g)}
    node = pick(rng, (n for n in g.of("Sigmoid") if g.computed(n.output[0]) and n.name not in own and not g.is_output(n.output[0]) and any(c.op_type == "Mul" for c in g.consumers(n.output[0]))))
    if node is None:
        return None
    made, late = _behind(g, node.output[0], node.output[0] + "__twice", "Mul", [g.add_constant(np.float32(2), "two")])
    return planted(made, late, outputs=[made.output[0], late.output[0]])


@fault("scale")
def embedding_scaled_twice(g, rng):
    """The factor of the embeddings in the table already, and applied once more."""
    sites = [(n, n.input[k]) for n in g.of("Mul") for k in (0, 1) if (s := g.scalar(n.input[k])) is not None and abs(s - 1) > 0.05 and (p := g.producer(n.input[1 - k])) is not None and p.op_type == "Gather" and not g.is_output(n.output[0])]
    found = pick(rng, sites)
    if found is None:
        return None
    made, late = _behind(g, found[0].output[0], found[0].output[0] + "__again", "Mul", [found[1]])
    return planted(made, late, outputs=[made.output[0], late.output[0]])


@fault("layout")
def shuffle_dropped(g, rng):
    """Channels, pairs or windows are cut apart and put together again without having been moved in between."""
    sites = []
    for t in g.of("Transpose"):
        cut = g.producer(t.input[0])
        for r in g.consumers(t.output[0]):
            if cut is not None and cut.op_type == r.op_type == "Reshape" and g.computed(r.output[0]) and g.shape(r.output[0]) == g.shape(cut.input[0]):
                sites.append((r, cut.input[0]))
    found = pick(rng, sites)
    if found is None:
        return None
    _become(found[0], "Identity", [found[1]])
    return planted(found[0])
