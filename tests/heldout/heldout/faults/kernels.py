"""What kernel writers, exporters and those who carry weights over get wrong in layers that everybody has. Fourth set."""
import numpy as np
from onnx import TensorProto

from ..benign.lowered import _become, _ints
from ..graph import attribute, set_attribute
from .again_layers import _hand_on, _reached
from .attention import _before_softmax
from .positions import _rotations, _table_inputs
from .registry import Planted, fault, pick, planted
from .spellings import _behind, _scores
from .weights import _biases, _heads, _replace, _weights
from .wiring import _residuals


def _turned(node, w):
    """The weight with outputs first, and what brings it back."""
    return w.ndim == 2 and node.op_type in ("MatMul", "Gemm") and not (node.op_type == "Gemm" and attribute(node, "transB", 0))


def _rows_first(node, w):
    return w.T if _turned(node, w) else w


def _store(g, node, i, w, rows):
    return _replace(g, node, i, rows.T if _turned(node, w) else rows)


def _all_of(g, had, node, **said):
    """The node and everything that was put in since there were only the nodes `had`."""
    return planted(*(n for n in g.nodes if n.name not in had and n.name != node.name), node, **said)


def _had(g):
    return {n.name for n in g.nodes}


def _products(g):
    """(softmax, product of queries and keys in front of it)."""
    sites = []
    for s, *_ in _scores(g):
        made = next((p for a in [s.input[0], *g.ancestors(s.input[0], 12)] if (p := g.producer(a)) is not None and p.op_type == "MatMul" and all(g.computed(i) for i in p.input)), None)
        if made is not None:
            sites.append((s, made))
    return sites


@fault("rope")
def rope_partial(g, rng):
    """Only the first half of the frequencies turned, as with another share of rotary features."""
    site = pick(rng, [(f, t) for f in _rotations(g) if (t := _table_inputs(g, f))])
    if site is None:
        return None
    found, tables = site
    for (m, k), still in zip(tables, (1.0, 0.0)):
        table = g.value(m.input[k]).copy()
        width = table.shape[-1]
        table[..., np.arange(width) % (width // 2) >= width // 4] = still
        m.input[k] = g.add_constant(table, m.output[0] + "__table")
    return Planted([m.name for m, _ in tables] + [found[-1].name], [m.output[0] for m, _ in tables] + [found[-1].output[0]], "Mul")


@fault("rope")
def rope_axes_exchanged(g, rng):
    """Rows turn the features that columns are meant to turn; where there is one axis, slow frequencies stand where fast ones are meant."""
    site = pick(rng, [(f, t) for f in _rotations(g) if (t := _table_inputs(g, f))])
    if site is None:
        return None
    found, tables = site
    for m, k in tables:
        table = g.value(m.input[k])
        quarter = table.shape[-1] // 4
        if not quarter:
            return None
        order = np.concatenate([np.arange(quarter, 2 * quarter), np.arange(quarter), np.arange(3 * quarter, 4 * quarter), np.arange(2 * quarter, 3 * quarter)])
        if order.size != table.shape[-1]:
            return None
        m.input[k] = g.add_constant(np.ascontiguousarray(table[..., order]), m.output[0] + "__table")
    return Planted([m.name for m, _ in tables] + [found[-1].name], [m.output[0] for m, _ in tables] + [found[-1].output[0]], "Mul")


@fault("mask")
def mask_multiplied(g, rng):
    """Scores times a mask of ones and noughts in place of an addition of something very negative."""
    sites = []
    for s, *_ in _scores(g):
        m = g.producer(s.input[0])
        for k, name in enumerate(m.input if m is not None and m.op_type == "Add" else ()):
            v, x = g.value(name), m.input[1 - k]
            if v is not None and v.min() < -1e3 and (v.reshape(-1) == 0).any() and g.computed(x) and np.abs(g.value(x)).max() < 1e3:
                sites.append((m, name, x))
    found = pick(rng, sites)
    if found is None:
        return None
    had = _had(g)
    m, name, x = found
    stem = m.output[0] + "__seen"
    seen = g.insert(m, "Greater", [name, g.add_constant(np.float32(-1), stem)], stem)
    seen = g.insert(m, "Cast", [seen.output[0]], stem, to=TensorProto.FLOAT)
    _become(m, "Mul", [x, seen.output[0]])
    return _all_of(g, had, m)


@fault("mask")
def padding_forgotten(g, rng):
    """Of two masks that are put together one is left out."""
    sites = []
    for n in g.of("And", "Add", "Where", "Mul"):
        values = [g.value(i) for i in n.input]
        out = g.value(n.output[0])
        if len(n.input) != 2 or out is None or n.output[0] not in g.live or any(v is None for v in values):
            continue
        masks = out.dtype == bool or out.min() < -1e3 and all(v.min() < -1e3 and v.max() <= 0 for v in values)
        sites += [(n, n.input[k]) for k in (0, 1) if masks and np.broadcast_shapes(values[k].shape, out.shape) == out.shape and values[1 - k].size > 1 and not np.array_equal(np.broadcast_to(values[k], out.shape), out)]
    found = pick(rng, sites)
    if found is None:
        return None
    n, name = found
    full = _ints(g, g.shape(n.output[0]), n.output[0] + "__full")
    _become(n, "Expand", [name, full])
    return planted(n)


@fault("epsilon")
def eps_forgotten(g, rng):
    """No epsilon at all."""
    sites = [(n, None) for n in g.of("LayerNormalization", "BatchNormalization", "InstanceNormalization", "GroupNormalization")]
    sites += [(n, 1 - k) for n in g.of("Add") for k in (0, 1) if (s := g.scalar(n.input[1 - k])) is not None and 0 < s < 0.1 and n.input[k] in g.live
              and any(c.op_type in ("Sqrt", "Rsqrt", "Reciprocal", "Div") for c in g.consumers(n.output[0]))]
    found = pick(rng, sites)
    if found is None:
        return None
    node, i = found
    if i is None:
        set_attribute(node, "epsilon", 0.0)
        return planted(node)
    return _hand_on(node, node.input[1 - i])


@fault("normalisation")
def variance_about_zero(g, rng):
    """The variance of a layer norm without taking off the mean."""
    node = pick(rng, (n for n in g.of("LayerNormalization") if attribute(n, "axis", -1) % len(g.shape(n.input[0])) == len(g.shape(n.input[0])) - 1))
    if node is None:
        return None
    had = _had(g)
    stem, x, eps = node.output[0] + "__raw", node.input[0], attribute(node, "epsilon", 1e-5)
    square = g.insert(node, "Mul", [x, x], stem).output[0]
    safe = g.insert(node, "Add", [g.insert_reduce(node, "ReduceMean", square, [-1], stem).output[0], g.add_constant(np.float32(eps), stem)], stem).output[0]
    off = g.insert(node, "Sub", [x, g.insert_reduce(node, "ReduceMean", x, [-1], stem).output[0]], stem).output[0]
    unit = g.insert(node, "Div", [off, g.insert(node, "Sqrt", [safe], stem).output[0]], stem).output[0]
    rest = list(node.input[1:])
    if len(rest) > 1:
        _become(node, "Add", [g.insert(node, "Mul", [unit, rest[0]], stem).output[0], rest[1]])
    else:
        _become(node, "Mul", [unit, rest[0]])
    return _all_of(g, had, node)


@fault("normalisation")
def gain_before_norm(g, rng):
    """The gain multiplied in front of the statistics."""
    node = pick(rng, (n for n in g.of("LayerNormalization") if g.constant(n.input[1]) is not None and np.ptp(g.constant(n.input[1])) > 0.01))
    if node is None:
        return None
    gain = node.input[1]
    early = g.insert(node, "Mul", [node.input[0], gain], node.output[0] + "__early")
    node.input[0], node.input[1] = early.output[0], g.add_constant(np.ones(g.shape(gain), np.float32), gain + "__one")
    return planted(early, node, outputs=[early.output[0], node.output[0]])


@fault("weight_layout")
def rotary_rows(g, rng):
    """The rows of a projection that is turned by position kept for neighbouring pairs where halves are turned, or the other way round."""
    sites = [(n, i, w, h) for n, i, w in _weights(g) if w.ndim == 2 and (h := _heads(g, n)) and _rows_first(n, w).shape[0] % (2 * h) == 0 and _reached(g, n.output[0], ("Neg",), 9)]
    found = pick(rng, sites)
    if found is None:
        return None
    node, i, w, heads = found
    rows = _rows_first(node, w)
    return _store(g, node, i, w, rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape))


@fault("weight_layout")
def packed_rows(g, rng):
    """Inputs interleaved in blocks of four, as a kernel wants them, read in plain order."""
    found = pick(rng, [(n, i, w) for n, i, w in _weights(g) if w.ndim == 2 and w.size >= 64 and _rows_first(n, w).shape[1] % 8 == 0])
    if found is None:
        return None
    node, i, w = found
    rows = _rows_first(node, w)
    return _store(g, node, i, w, rows.reshape(rows.shape[0], 4, -1).swapaxes(1, 2).reshape(rows.shape))


@fault("weight_swap")
def sibling_weight(g, rng):
    """The weight of another layer that reads the same."""
    every = _weights(g)
    sites = [(n, i, v) for n, i, w in every for m, j, v in every if n.name != m.name and n.input[0] == m.input[0] and w.shape == v.shape and not np.array_equal(w, v) and n.op_type == m.op_type and i == j == 1]
    found = pick(rng, sites)
    return None if found is None else _replace(g, found[0], found[1], found[2].copy())


@fault("weight_value")
def pruned_two_of_four(g, rng):
    """Of every four weights the two smallest are nought."""
    found = pick(rng, [(n, i, w) for n, i, w in _weights(g) if w.size % 4 == 0 and w.size >= 64])
    if found is None:
        return None
    node, i, w = found
    fours = w.reshape(-1, 4).copy()
    fours[np.abs(fours).argsort(1).argsort(1) < 2] = 0
    return _replace(g, node, i, fours.reshape(w.shape))


@fault("weight_value")
def outliers_clipped(g, rng):
    """The largest weights cut to a bound."""
    found = pick(rng, [(n, i, w) for n, i, w in _weights(g) if w.size >= 64])
    if found is None:
        return None
    node, i, w = found
    most = float(np.quantile(np.abs(w), 0.97))
    return _replace(g, node, i, np.clip(w, -most, most))


@fault("bias")
def bias_added(g, rng):
    """A bias where there is none."""
    sites = [n.output[0] for n, i, w in _weights(g) if i == 1 and n.op_type == "MatMul" and g.computed(n.output[0]) and not g.is_output(n.output[0]) and not any(
        c.op_type == "Add" and any((b := g.constant(k)) is not None and b.ndim == 1 for k in c.input) for c in g.consumers(n.output[0]))]
    value = pick(rng, sites)
    if value is None:
        return None
    size = g.shape(value)[-1]
    bias = g.add_constant((np.random.default_rng(size).standard_normal(size) * 0.2 * np.abs(g.value(value)).mean()).astype(np.float32), value + "__bias")
    made, late = _behind(g, value, value + "__biased", "Add", [bias])
    return planted(made, late, outputs=[made.output[0], late.output[0]])


@fault("bias")
def bias_of_one_head(g, rng):
    """The bias of the first quarter used for all."""
    found = pick(rng, [(n, i, b) for n, i, b in _biases(g) if b.size >= 8 and b.size % 4 == 0])
    if found is None:
        return None
    node, i, b = found
    return _replace(g, node, i, np.tile(b[:b.size // 4], 4))


@fault("input_binding")
def inputs_exchanged(g, rng):
    """Two inputs of one kind change roles, at one of the places that read them."""
    inputs = [i.name for i in g.model.graph.input]
    sites = [(a, b, c) for a in inputs for b in inputs if a != b and g.shape(a) == g.shape(b) and g.value(a).dtype == g.value(b).dtype for c in g.consumers(a)]
    found = pick(rng, sites)
    if found is None:
        return None
    a, b, node = found
    node.input[list(node.input).index(a)] = b
    return planted(node, outputs=[o for o in node.output if o])


@fault("quantisation")
def keys_in_eight_bits(g, rng):
    """Keys kept on a grid of eight bits, a step for each place."""
    found = pick(rng, [m for _, m in _products(g)])
    if found is None:
        return None
    had = _had(g)
    node, name = found, found.input[1]
    stem = node.output[0] + "__kept"
    step = g.insert(node, "Div", [g.insert_reduce(node, "ReduceMax", g.insert(node, "Abs", [name], stem).output[0], [-2], stem).output[0], g.add_constant(np.float32(127), stem)], stem).output[0]
    whole = g.insert(node, "Round", [g.insert(node, "Div", [name, step], stem).output[0]], stem).output[0]
    kept = g.insert(node, "Mul", [whole, step], stem)
    node.input[1] = kept.output[0]
    return _all_of(g, had, node, outputs=[kept.output[0], node.output[0]])


@fault("quantisation")
def weight_steps_across(g, rng):
    """A weight on eight bits whose steps were found for the rows and are applied to the columns."""
    found = pick(rng, [(n, i, w) for n, i, w in _weights(g) if w.ndim == 2 and w.shape[0] == w.shape[1] >= 8])
    if found is None:
        return None
    node, i, w = found
    step = np.abs(w).max(1, keepdims=True) / 127
    return _replace(g, node, i, np.round(w / step) * step.T)


@fault("activation")
def gelu_instead(g, rng):
    """A GELU where a ReLU or a SiLU is meant."""
    sites = [(n, n.input[0]) for n in g.of("Relu") if g.computed(n.output[0])]
    for n in g.of("Mul"):
        for k in (0, 1):
            s = g.producer(n.input[k])
            if s is not None and s.op_type == "Sigmoid" and s.input[0] == n.input[1 - k] and g.computed(n.output[0]):
                sites.append((n, n.input[1 - k]))
    found = pick(rng, sites)
    if found is None:
        return None
    had = _had(g)
    node, x = found
    stem, c = node.output[0] + "__gelu", lambda v: g.add_constant(np.float32(v), node.output[0] + "__gelu_c")
    erf = g.insert(node, "Erf", [g.insert(node, "Mul", [x, c(0.5 ** 0.5)], stem).output[0]], stem).output[0]
    half = g.insert(node, "Mul", [g.insert(node, "Add", [erf, c(1)], stem).output[0], c(0.5)], stem).output[0]
    _become(node, "Mul", [x, half])
    return _all_of(g, had, node)


@fault("activation")
def softcap_added(g, rng):
    """Scores or results bent by a tanh where they are not meant to be."""
    sites = [m.output[0] for _, m in _products(g)] + [n.output[0] for n in g.of("Gemm", "MatMul") if g.computed(n.output[0]) and _reached(g, n.output[0], ("Softmax", "LogSoftmax"), 2)]
    value = pick(rng, [s for s in sites if not g.is_output(s)])
    if value is None:
        return None
    cap = g.add_constant(np.float32(1.5 * np.abs(g.value(value)).max()), value + "__cap")
    out = value
    made = g.producer(value)
    g.rename_output(made, 0, g.fresh(value + "__free"))
    less = g.insert_after(made, "Div", [made.output[0], cap], value + "__less")
    bent = g.insert_after(less, "Tanh", [less.output[0]], value + "__bent")
    late = g.insert_after(bent, "Mul", [bent.output[0], cap], value + "__capped", output=out)
    return planted(made, less, bent, late, outputs=[made.output[0], less.output[0], bent.output[0], out])


@fault("scale")
def keys_scaled_too(g, rng):
    """The factor of the scores applied to queries and once more to keys."""
    factors = {n.output[0]: n for n, _ in _before_softmax(g)}
    sites = []
    for s, m in _products(g):
        near = [factors[a] for a in [s.input[0], *g.ancestors(s.input[0], 14)] if a in factors]
        if near:
            sites.append((m, next(g.scalar(i) if near[0].op_type == "Mul" else 1 / g.scalar(i) for i in near[0].input if g.scalar(i) is not None)))
    found = pick(rng, [s for s in sites if 0.05 < abs(s[1] - 1) < 100])
    if found is None:
        return None
    node, factor = found
    more = g.insert(node, "Mul", [node.input[1], g.add_constant(np.float32(factor), node.output[0] + "__again")], node.output[0] + "__keys")
    node.input[1] = more.output[0]
    return planted(more, node, outputs=[more.output[0], node.output[0]])


@fault("precision")
def cache_in_bfloat(g, rng):
    """Keys or values kept in brain floats."""
    products = [n for n in g.of("MatMul") if all(g.computed(i) and len(g.shape(i)) >= 3 for i in n.input)]
    node = pick(rng, products)
    if node is None:
        return None
    stem = node.output[0] + "__kept"
    narrow = g.insert(node, "Cast", [node.input[1]], stem, to=TensorProto.BFLOAT16)
    wide = g.insert(node, "Cast", [narrow.output[0]], stem, to=TensorProto.FLOAT)
    node.input[1] = wide.output[0]
    return planted(narrow, wide, node, outputs=[narrow.output[0], wide.output[0], node.output[0]])


@fault("accumulation")
def partial_sums_rounded(g, rng):
    """A product in four parts of its inner axis, added up in half precision."""
    found = pick(rng, [(n, w) for n, i, w in _weights(g) if n.op_type == "MatMul" and i == 1 and w.ndim == 2 and w.shape[0] % 4 == 0 and w.shape[0] >= 16 and g.computed(n.output[0]) and np.abs(g.value(n.output[0])).max() < 1e3])
    if found is None:
        return None
    had = _had(g)
    node, w = found
    stem, x, total, each = node.output[0] + "__part", node.input[0], None, w.shape[0] // 4
    axis = len(g.shape(x)) - 1
    for k in range(4):
        rows = g.insert(node, "Slice", [x, _ints(g, k * each, stem), _ints(g, (k + 1) * each, stem), _ints(g, axis, stem)], stem).output[0]
        part = g.insert(node, "MatMul", [rows, g.add_constant(np.ascontiguousarray(w[k * each:(k + 1) * each]), stem)], stem).output[0]
        total = part if total is None else g.insert(node, "Add", [total, part], stem).output[0]
        half = g.insert(node, "Cast", [total], stem, to=TensorProto.FLOAT16).output[0]
        total = g.insert(node, "Cast", [half], stem, to=TensorProto.FLOAT).output[0] if k < 3 else half
    _become(node, "Cast", [total], to=TensorProto.FLOAT)
    return _all_of(g, had, node)


@fault("axis")
def other_axis(g, rng):
    """The neighbouring axis, where an operator goes along one and keeps the shape, or finds a place."""
    sites = []
    for n in g.of("LogSoftmax", "ArgMax", "ArgMin", "Split", "CumSum", "Softmax"):
        shape = g.shape(n.input[0])
        if not g.computed(n.input[0]) or len(shape) < 2 or n.op_type == "Split" and len({g.shape(o) for o in n.output}) > 1:
            continue
        axis = int(g.value(n.input[1]).reshape(-1)[0]) if n.op_type == "CumSum" else attribute(n, "axis", 0 if "Arg" in n.op_type or n.op_type == "Split" else -1)
        axis %= len(shape)
        sites += [(n, other) for other in (axis - 1, axis + 1) if 0 <= other < len(shape) and shape[other] > 1 and (n.op_type in ("LogSoftmax", "CumSum", "Softmax") or shape[other] == shape[axis])]
    found = pick(rng, sites)
    if found is None:
        return None
    node, axis = found
    if node.op_type == "CumSum":
        node.input[1] = g.add_constant(np.array(axis, np.int64), node.output[0] + "__axis")
    else:
        set_attribute(node, "axis", axis)
    return planted(node, outputs=[o for o in node.output if o])


@fault("layout")
def flattened_channels_last(g, rng):
    """Rows, columns, channels where channels come first when a map is made into one row or into places."""
    sites = []
    for n in g.of("Reshape", "Flatten"):
        a, b = g.shape(n.input[0]), g.shape(n.output[0])
        if g.computed(n.output[0]) and a and b and len(a) == 4 and len(b) < 4 and a[1] > 1 and a[2] == a[3] > 1 and (len(b) == 2 or b[1] == a[1]):
            sites.append(n)
    node = pick(rng, sites)
    if node is None:
        return None
    turned = g.insert(node, "Transpose", [node.input[0]], node.output[0] + "__last", perm=[0, 2, 3, 1])
    node.input[0] = turned.output[0]
    if node.op_type == "Reshape":
        node.input[1] = _ints(g, g.shape(node.output[0]), node.output[0] + "__shape")
    return planted(turned, node, outputs=[turned.output[0], node.output[0]])


@fault("layout")
def batch_time_mixed(g, rng):
    """(batch, time) read as (time, batch): the memory is given the other shape, not moved."""
    sites = [n for n in g.of("Add", "LayerNormalization", "MatMul", "Gather") if g.computed(n.output[0]) and not g.is_output(n.output[0]) and len(g.shape(n.output[0])) == 3 and 1 < g.shape(n.output[0])[0] < g.shape(n.output[0])[1]]
    node = pick(rng, sites)
    if node is None:
        return None
    b, t, w = g.shape(node.output[0])
    out, stem = node.output[0], node.output[0] + "__time"
    g.rename_output(node, 0, g.fresh(stem))
    read = g.insert_after(node, "Reshape", [node.output[0], _ints(g, [t, b, w], stem)], stem)
    moved = g.insert_after(read, "Transpose", [read.output[0]], stem, output=out, perm=[1, 0, 2])
    return planted(node, read, moved, outputs=[read.output[0], out])


@fault("operand_order")
def pieces_rotated(g, rng):
    """Three or more pieces joined in another order."""
    node = pick(rng, (n for n in g.of("Concat") if len(n.input) > 2 and sum(g.computed(i) for i in n.input) > 1 and g.computed(n.output[0]) and len({g.shape(i) for i in n.input}) < len(n.input)))
    if node is None:
        return None
    names = list(node.input)
    del node.input[:]
    node.input.extend(names[1:] + names[:1])
    return planted(node)


@fault("index")
def other_end(g, rng):
    """The last place where the first is meant, or the first where the last is."""
    sites = []
    for n in g.of("Gather"):
        c, axis = g.constant(n.input[1]), attribute(n, "axis", 0)
        size = g.shape(n.input[0])[axis] if g.computed(n.input[0]) else 0
        if c is not None and c.size == 1 and size > 1 and int(c.reshape(-1)[0]) % size in (0, size - 1) and axis > 0:
            sites.append((n, c, size))
    found = pick(rng, sites)
    if found is None:
        return None
    node, c, size = found
    node.input[1] = g.add_constant((size - 1 - c % size).astype(c.dtype), node.input[1] + "__z")
    return planted(node)


@fault("index")
def rows_read_backwards(g, rng):
    """Every second piece of a grid of windows or patches is fetched from the other side: places along one axis mirrored."""
    sites = [(n, a) for n in g.of("Reshape") if g.computed(n.output[0]) and not g.is_output(n.output[0]) and len(s := g.shape(n.output[0])) >= 4 for a in range(1, len(s) - 1) if 2 <= s[a] <= 12]
    found = pick(rng, sites)
    if found is None:
        return None
    node, axis = found
    order = g.add_constant(np.arange(g.shape(node.output[0])[axis])[::-1].astype(np.int64).copy(), node.output[0] + "__order")
    out = g.rename_output(node, 0, g.fresh(node.output[0] + "__here"))
    late = g.insert_after(node, "Gather", [node.output[0], order], out + "__back", output=out, axis=axis)
    return planted(node, late, outputs=[out])


def _bordered(g):
    """Convolutions of step one with the same border of noughts on both ends of an axis."""
    for n in g.of("Conv"):
        pads = attribute(n, "pads")
        if pads and attribute(n, "auto_pad", b"NOTSET") == b"NOTSET" and g.computed(n.output[0]) and max(pads) > 0 and pads[:len(pads) // 2] == pads[len(pads) // 2:]:
            yield n, pads[:len(pads) // 2]


@fault("padding")
def border_wrapped(g, rng):
    """A border that goes on at the other end, where noughts are meant."""
    found = pick(rng, [(n, p) for n, p in _bordered(g) if all(k < s for k, s in zip(p, g.shape(n.input[0])[2:]))])
    if found is None:
        return None
    had = _had(g)
    node, pads = found
    x, stem = node.input[0], node.output[0] + "__round"
    for k, p in enumerate(pads):
        if p:
            rows = np.pad(np.arange(g.shape(node.input[0])[2 + k]), p, mode="wrap")
            x = g.insert(node, "Gather", [x, _ints(g, rows, stem)], stem, axis=2 + k).output[0]
    node.input[0] = x
    set_attribute(node, "pads", [0] * 2 * len(pads))
    return _all_of(g, had, node, outputs=[x, node.output[0]])


@fault("padding")
def border_behind(g, rng):
    """Noughts put around the result of a convolution without border, to keep the shape."""
    sites = [(n, p) for n, p in _bordered(g) if max(attribute(n, "strides", [1])) == 1 and not g.is_output(n.output[0]) and g.shape(n.input[0])[2:] == g.shape(n.output[0])[2:] and all(2 * k < s for k, s in zip(p, g.shape(n.input[0])[2:]))]
    found = pick(rng, sites)
    if found is None:
        return None
    node, pads = found
    out = g.rename_output(node, 0, g.fresh(node.output[0] + "__inner"))
    set_attribute(node, "pads", [0] * 2 * len(pads))
    late = g.insert_after(node, "Pad", [node.output[0], _ints(g, [0, 0, *pads, 0, 0, *pads], out + "__pads")], out + "__around", output=out)
    return planted(node, late, outputs=[node.output[0], out])


OTHER = {"ReduceL2": ["ReduceL1"], "ReduceLogSumExp": ["ReduceMax", "ReduceSum"], "GlobalAveragePool": ["GlobalMaxPool"], "ReduceMax": ["ReduceMean"]}


@fault("reduction")
def other_reduction(g, rng):
    """Another way to make one of many: lengths by sums, the largest for the logarithm of the sum, the mean for the largest."""
    node = pick(rng, (n for n in g.of(*OTHER, "MaxPool") if g.computed(n.input[0]) and g.value(n.output[0]).size > 1 and (n.op_type != "MaxPool" or len(n.output) == 1)))
    if node is None:
        return None
    if node.op_type == "MaxPool":
        node.op_type = "LpPool"
        for name in ("storage_order",):
            set_attribute(node, name, None)
        if g.opset < 18:
            set_attribute(node, "ceil_mode", None)
            set_attribute(node, "dilations", None)
        return planted(node)
    node.op_type = pick(rng, OTHER[node.op_type])
    return planted(node)


@fault("gate_order")
def recurrence_gates(g, rng):
    """The gates of the recurrent weight alone in another library's order."""
    node = pick(rng, (n for n in g.of("LSTM", "GRU") if g.constant(n.input[2]) is not None))
    if node is None:
        return None
    w, order = g.constant(node.input[2]), [0, 2, 3, 1] if node.op_type == "LSTM" else [1, 0, 2]
    split = w.reshape(w.shape[0], len(order), -1, w.shape[2])
    node.input[2] = g.add_constant(np.ascontiguousarray(split[:, order]).reshape(w.shape), node.input[2] + "__z")
    return planted(node, outputs=[o for o in node.output if o])


@fault("residual")
def residual_twice(g, rng):
    """The skip added once more."""
    found = pick(rng, _residuals(g))
    if found is None:
        return None
    node, i = found
    out = g.rename_output(node, 0, g.fresh(node.output[0] + "__once"))
    late = g.insert_after(node, "Add", [node.output[0], node.input[i]], out + "__twice", output=out)
    return planted(node, late, outputs=[node.output[0], out])


@fault("residual")
def side_by_side(g, rng):
    """A branch reads what the branch before it read, not its result: blocks in parallel where they are meant in turn."""
    sites = [(c, k, n.input[i]) for n, i in _residuals(g) for c in g.consumers(n.output[0]) for k, name in enumerate(c.input) if name == n.output[0] and c.op_type in ("LayerNormalization", "Conv", "MatMul", "Gemm", "BatchNormalization")]
    found = pick(rng, sites)
    if found is None:
        return None
    node, k, other = found
    node.input[k] = other
    return planted(node)


@fault("nan")
def hidden_by_infinity(g, rng):
    """One less the mask times minus infinity, which is no number where nothing is hidden."""
    sites = [(n, k) for n in g.of("Mul") for k in (0, 1) if (s := g.scalar(n.input[k])) is not None and s <= -1e4 and n.input[1 - k] in g.live]
    found = pick(rng, sites)
    if found is None:
        return None
    node, k = found
    node.input[k] = g.add_constant(np.full(g.shape(node.input[k]), -np.inf, np.float32), node.input[k] + "__z")
    return planted(node)
