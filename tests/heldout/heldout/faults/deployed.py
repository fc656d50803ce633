"""What goes wrong between a trained network and the one that is deployed: tables, packed weights, narrow kernels, switches left on. Fifth set."""
import numpy as np
from onnx import TensorProto

from ..benign.lowered import _become, _ints
from ..graph import attribute, set_attribute
from .attention import _mask_adds
from .kernels import _all_of, _bordered, _had, _products, _rows_first, _store
from .ported_layers import _all_norms
from .positions import _rotations, _table_inputs
from .registry import Planted, fault, pick, planted
from .spellings import _behind, _scores
from .weights import _biases, _replace, _weights
from .wiring import _residuals


def _rounded(g, node, name, to, stem):
    """The value through a narrower type and back, in front of a node."""
    narrow = g.insert(node, "Cast", [name], stem, to=to)
    return g.insert(node, "Cast", [narrow.output[0]], stem, to=TensorProto.FLOAT).output[0]


def _with_tables(g, rng, change):
    """Both tables of one rotation changed alike."""
    site = pick(rng, [(f, t) for f in _rotations(g) if (t := _table_inputs(g, f))])
    if site is None:
        return None
    found, tables = site
    for m, k in tables:
        table = change(g.value(m.input[k]))
        if table is None:
            return None
        m.input[k] = g.add_constant(np.ascontiguousarray(table), m.output[0] + "__table")
    return Planted([m.name for m, _ in tables] + [found[-1].name], [m.output[0] for m, _ in tables] + [found[-1].output[0]], "Mul")


@fault("rope")
def rope_table_scaled(g, rng):
    """Both tables times the factor by which longer contexts are attended."""
    return _with_tables(g, rng, lambda t: t * np.float32(0.1 * np.log(4) + 1))


@fault("rope")
def positions_restart(g, rng):
    """Positions that begin again with each chunk."""
    def restarted(table):
        axis = next((a for a in range(table.ndim - 1) if table.shape[a] >= 8), None)
        return None if axis is None else np.take(table, np.arange(table.shape[axis]) % (table.shape[axis] // 2), axis)
    return _with_tables(g, rng, restarted)


@fault("mask")
def prefix_seen(g, rng):
    """The first places see one another, as in a model of prefixes."""
    found = pick(rng, [(n, i) for n, i in _mask_adds(g) if (v := g.value(n.input[i])).ndim >= 2 and v.shape[-1] == v.shape[-2] >= 8 and v[..., 0, 3].min() < -1e4])
    if found is None:
        return None
    node, i = found
    size = g.shape(node.input[i])[-1]
    hidden = np.ones((size, size), np.float32)
    hidden[:4, :4] = 0
    less = g.insert(node, "Mul", [node.input[i], g.add_constant(hidden, node.output[0] + "__rest")], node.output[0] + "__prefix")
    node.input[i] = less.output[0]
    return planted(less, node, outputs=[less.output[0], node.output[0]])


@fault("mask")
def last_key_hidden(g, rng):
    """One key too few: a kernel that stops before the last one."""
    found = pick(rng, _scores(g))
    if found is None:
        return None
    node, _, columns = found
    none = np.zeros(columns, np.float32)
    none[-1] = -1e9
    added = g.insert(node, "Add", [node.input[0], g.add_constant(none, node.output[0] + "__last")], node.output[0] + "__short")
    node.input[0] = added.output[0]
    return planted(added, node, outputs=[added.output[0], node.output[0]])


EQUAL = {"Less": "LessOrEqual", "LessOrEqual": "Less", "Greater": "GreaterOrEqual", "GreaterOrEqual": "Greater"}


@fault("mask")
def equal_included(g, rng):
    """A mask by comparison that takes in what is equal, or leaves it out."""
    sites = [n for n in g.of(*EQUAL) if n.output[0] in g.live and g.value(n.output[0]).size > 1 and np.any(np.equal(*(g.value(i) for i in n.input[:2])))]
    node = pick(rng, sites)
    if node is None:
        return None
    node.op_type = EQUAL[node.op_type]
    return planted(node)


@fault("normalisation")
def statistics_of_half(g, rng):
    """The mean of squares over the first half of the features."""
    sites = [n for n in g.of("ReduceMean") if g.computed(n.input[0]) and g.shape(n.input[0])[-1] >= 8 and g.value(n.input[0]).size == g.value(n.output[0]).size * g.shape(n.input[0])[-1]
             and any(c.op_type == "Add" and any(0 < (g.scalar(i) or 0) < 0.1 for i in c.input) for c in g.consumers(n.output[0]))]
    node = pick(rng, sites)
    if node is None:
        return None
    shape, stem = g.shape(node.input[0]), node.output[0] + "__half"
    cut = g.insert(node, "Slice", [node.input[0], _ints(g, 0, stem), _ints(g, shape[-1] // 2, stem), _ints(g, len(shape) - 1, stem)], stem)
    node.input[0] = cut.output[0]
    return planted(cut, node, outputs=[cut.output[0], node.output[0]])


@fault("normalisation")
def gain_twice(g, rng):
    """The gain of a norm applied once more behind it."""
    sites = [(n.output[0], n.input[1]) for n in g.of("LayerNormalization") if (w := g.constant(n.input[1])) is not None and np.ptp(w) > 0.01 and not g.is_output(n.output[0])]
    sites += [(n.output[0], i) for n, _ in _all_norms(g) if n.op_type == "Mul" and not g.is_output(n.output[0]) for i in n.input if (w := g.constant(i)) is not None and w.ndim == 1 and np.ptp(w) > 0.01]
    found = pick(rng, sites)
    if found is None:
        return None
    value, gain = found
    made, late = _behind(g, value, value + "__twice", "Mul", [gain])
    return planted(made, late, outputs=[made.output[0], late.output[0]])


def _read_otherwise(g, rng, least, fits, read):
    """A matrix of at least so many elements, its outputs as rows, `read` in another way."""
    found = pick(rng, [(n, i, w) for n, i, w in _weights(g) if w.ndim == 2 and w.size >= least and fits(_rows_first(n, w))])
    if found is None:
        return None
    node, i, w = found
    rows = _rows_first(node, w)
    return _store(g, node, i, w, read(rows).reshape(rows.shape))


@fault("weight_layout")
def nibbles_exchanged(g, rng):
    """The two halves of each packed byte unpacked the wrong way round: neighbouring inputs exchanged."""
    return _read_otherwise(g, rng, 64, lambda w: w.shape[1] % 2 == 0, lambda w: w.reshape(w.shape[0], -1, 2)[..., ::-1])


@fault("weight_layout")
def tiles_of_eight(g, rng):
    """A weight in tiles of eight outputs, inputs outside, read row by row."""
    return _read_otherwise(g, rng, 128, lambda w: w.shape[0] % 8 == 0, lambda w: w.reshape(-1, 8, w.shape[1]).swapaxes(1, 2))


@fault("weight_swap")
def gain_for_shift(g, rng):
    """Gain and shift of one norm exchanged."""
    node = pick(rng, (n for n in g.of("LayerNormalization", "BatchNormalization", "InstanceNormalization", "GroupNormalization") if len(n.input) > 2 and all(g.constant(i) is not None for i in n.input[1:3])))
    if node is None:
        return None
    node.input[1], node.input[2] = node.input[2], node.input[1]
    return planted(node)


@fault("weight_value")
def averaged_weights(g, rng):
    """The weights of another step of the training: near the right ones, all of them moved."""
    found = pick(rng, [(n, i, w) for n, i, w in _weights(g) if w.size >= 64])
    if found is None:
        return None
    node, i, w = found
    return _replace(g, node, i, w + rng.standard_normal(w.shape) * 0.03 * w.std())


@fault("weight_value")
def bit_flipped(g, rng):
    """One stored number with one bit of its exponent flipped."""
    found = pick(rng, [(n, i, w) for n, i, w in _weights(g) if w.size >= 64 and n.op_type in ("MatMul", "Gemm", "Conv")])
    if found is None:
        return None
    node, i, w = found
    bits = w.copy().reshape(-1)
    at = int(np.argsort(np.abs(bits))[int(bits.size * 0.8)])
    bits[at] *= 16
    return _replace(g, node, i, bits.reshape(w.shape))


@fault("bias")
def bias_third_missing(g, rng):
    """Of a bias for three joined projections the middle one left at nought."""
    found = pick(rng, [(n, i, b) for n, i, b in _biases(g) if b.size % 3 == 0 and b.size >= 12])
    if found is None:
        return None
    node, i, b = found
    parts = b.reshape(3, -1).copy()
    parts[1] = 0
    return _replace(g, node, i, parts.reshape(b.shape))


@fault("input_binding")
def inputs_by_position(g, rng):
    """Two inputs of one kind bound the wrong way round, wherever they are read."""
    inputs = [i.name for i in g.model.graph.input]
    found = pick(rng, [(a, b) for k, a in enumerate(inputs) for b in inputs[:k] if g.shape(a) == g.shape(b) and g.value(a).dtype == g.value(b).dtype and g.consumers(a) and g.consumers(b)])
    if found is None:
        return None
    other = dict([found, found[::-1]])
    nodes = [n for n in g.nodes if set(n.input) & set(found)]
    for n in nodes:
        for i, name in enumerate(n.input):
            n.input[i] = other.get(name, name)
    return planted(*nodes, outputs=[*found, *(o for n in nodes for o in n.output if o)])


@fault("quantisation")
def attention_in_eight_bits(g, rng):
    """The weights of attention on 255 steps from nought to one."""
    node = pick(rng, (s for s, *_ in _scores(g)))
    if node is None:
        return None
    had = _had(g)
    stem, steps = node.output[0] + "__byte", g.add_constant(np.float32(255), node.output[0] + "__steps")
    out = g.rename_output(node, 0, g.fresh(stem))
    many = g.insert_after(node, "Mul", [node.output[0], steps], stem)
    whole = g.insert_after(many, "Round", [many.output[0]], stem)
    g.insert_after(whole, "Div", [whole.output[0], steps], stem, output=out)
    return _all_of(g, had, node, outputs=[node.output[0], out])


@fault("quantisation")
def weight_ternary(g, rng):
    """A weight of minus one, nought and one times one step."""
    found = pick(rng, [(n, i, w) for n, i, w in _weights(g) if w.ndim == 2 and w.size >= 64])
    if found is None:
        return None
    node, i, w = found
    step = np.abs(w).mean()
    return _replace(g, node, i, np.clip(np.round(w / step), -1, 1) * step)


@fault("quantisation")
def weight_block_floats(g, rng):
    """Floats of four bits in blocks that share a power of two."""
    found = pick(rng, [(n, i, w) for n, i, w in _weights(g) if w.ndim == 2 and _rows_first(n, w).shape[1] % 16 == 0])
    if found is None:
        return None
    node, i, w = found
    rows = _rows_first(node, w)
    blocks = rows.reshape(-1, 16)
    step = np.exp2(np.floor(np.log2(np.abs(blocks).max(1, keepdims=True) + 1e-30)) - 2)
    grid = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    near = grid[np.abs(np.abs(blocks / step)[..., None] - grid).argmin(-1)]
    return _store(g, node, i, w, (np.sign(blocks) * near * step).reshape(rows.shape))


def _gates(g):
    """(product, its gate, what is gated) of functions that multiply by their own sigmoid."""
    return [(n, s, n.input[1 - k]) for n in g.of("Mul") for k in (0, 1) if (s := g.producer(n.input[k])) is not None and s.op_type == "Sigmoid" and s.input[0] == n.input[1 - k] and g.computed(n.output[0])]


@fault("activation")
def mish_instead(g, rng):
    """Mish where SiLU or ReLU is meant."""
    found = pick(rng, [(n, x) for n, _, x in _gates(g)] + [(n, n.input[0]) for n in g.of("Relu") if g.computed(n.output[0])])
    if found is None:
        return None
    had = _had(g)
    node, x = found
    stem = node.output[0] + "__mish"
    bent = g.insert(node, "Tanh", [g.insert(node, "Softplus", [x], stem).output[0]], stem)
    _become(node, "Mul", [x, bent.output[0]])
    return _all_of(g, had, node)


@fault("activation")
def leaky_for_relu(g, rng):
    node = pick(rng, (n for n in g.of("Relu") if g.computed(n.output[0]) and g.value(n.input[0]).min() < 0))
    if node is None:
        return None
    _become(node, "LeakyRelu", list(node.input), alpha=0.01)
    return planted(node)


@fault("activation")
def tanh_for_sigmoid(g, rng):
    own = {s.name for _, s, _ in _gates(g)}
    node = pick(rng, (n for n in g.of("Sigmoid") if g.computed(n.output[0]) and n.name not in own))
    if node is None:
        return None
    node.op_type = "Tanh"
    return planted(node)


@fault("scale")
def skip_scaled(g, rng):
    """A skip multiplied by the root of a half, as in networks that keep the variance."""
    found = pick(rng, _residuals(g))
    if found is None:
        return None
    node, i = found
    less = g.insert(node, "Mul", [node.input[i], g.add_constant(np.float32(0.5 ** 0.5), node.output[0] + "__root")], node.output[0] + "__skip")
    node.input[i] = less.output[0]
    return planted(less, node, outputs=[less.output[0], node.output[0]])


@fault("accumulation")
def product_summed_in_half(g, rng):
    """A product of queries and keys, or of weights and values, whose kernel keeps its sum in half precision; the operands are halves too."""
    node = pick(rng, (n for n in g.of("MatMul") if all(g.computed(i) and len(g.shape(i)) >= 3 for i in n.input) and np.abs(g.value(n.output[0])).max() < 1e3))
    if node is None:
        return None
    had = _had(g)
    stem, total, size = node.output[0] + "__half", None, g.shape(node.input[0])[-1]
    if size > 24 or size < 4:
        return None
    a, b = node.input
    rank = [len(g.shape(i)) for i in (a, b)]
    for k in range(size):
        column = g.insert(node, "Slice", [a, _ints(g, k, stem), _ints(g, k + 1, stem), _ints(g, rank[0] - 1, stem)], stem).output[0]
        row = g.insert(node, "Slice", [b, _ints(g, k, stem), _ints(g, k + 1, stem), _ints(g, rank[1] - 2, stem)], stem).output[0]
        part = g.insert(node, "Mul", [column, row], stem).output[0]
        total = _rounded(g, node, part if total is None else g.insert(node, "Add", [total, part], stem).output[0], TensorProto.FLOAT16, stem)
    _become(node, "Identity", [total])
    return _all_of(g, had, node, outputs=[total, node.output[0]])


@fault("axis")
def softmax_flattened(g, rng):
    """A softmax over all axes from the one that is meant to the neighbour in front, as old operator sets had it."""
    sites = [n for n in g.of("Softmax") if g.computed(n.output[0]) and len(s := g.shape(n.output[0])) >= 3 and attribute(n, "axis", -1) in (-1, len(s) - 1) and s[-2] > 1]
    node = pick(rng, sites)
    if node is None:
        return None
    had = _had(g)
    shape, stem = g.shape(node.output[0]), node.output[0] + "__flat"
    flat = g.insert(node, "Reshape", [node.input[0], _ints(g, [*shape[:-2], -1], stem)], stem)
    soft = g.insert(node, "Softmax", [flat.output[0]], stem, axis=-1)
    _become(node, "Reshape", [soft.output[0], _ints(g, shape, stem)])
    return _all_of(g, had, node, outputs=[soft.output[0], node.output[0]])


@fault("layout")
def patches_by_columns(g, rng):
    """The patches of a picture counted column by column."""
    sites = [n for n in g.of("Reshape", "Flatten") if g.computed(n.output[0]) and len(a := g.shape(n.input[0])) == 4 and len(b := g.shape(n.output[0])) == 3 and a[:2] == b[:2] and a[2] == a[3] > 1]
    node = pick(rng, sites)
    if node is None:
        return None
    turned = g.insert(node, "Transpose", [node.input[0]], node.output[0] + "__columns", perm=[0, 1, 3, 2])
    node.input[0] = turned.output[0]
    return planted(turned, node, outputs=[turned.output[0], node.output[0]])


@fault("index")
def ids_shifted(g, rng):
    """Ids counted from one more, as vocabularies with further special words do."""
    inputs = {i.name for i in g.model.graph.input}
    sites = [n for n in g.of("Gather") if n.input[1] in inputs and g.constant(n.input[0]) is not None and g.value(n.input[1]).dtype == np.int64 and g.value(n.input[1]).max() + 1 < g.shape(n.input[0])[0]]
    node = pick(rng, sites)
    if node is None:
        return None
    more = g.insert(node, "Add", [node.input[1], _ints(g, 1, node.output[0] + "__one")], node.output[0] + "__next")
    node.input[1] = more.output[0]
    return planted(more, node, outputs=[more.output[0], node.output[0]])


@fault("reduction")
def mean_by_squares(g, rng):
    """The root of the mean of squares where the mean is meant."""
    sites = [n for n in g.of("ReduceMean", "GlobalAveragePool") if g.computed(n.output[0]) and not any(c.op_type in ("Add", "Sub", "Sqrt") for c in g.consumers(n.output[0])) and (m := g.producer(n.input[0])) is not None and m.op_type not in ("Pow", "Mul")]
    node = pick(rng, sites)
    if node is None:
        return None
    stem = node.output[0] + "__square"
    square = g.insert(node, "Mul", [node.input[0], node.input[0]], stem)
    node.input[0] = square.output[0]
    out = g.rename_output(node, 0, g.fresh(stem))
    root = g.insert_after(node, "Sqrt", [node.output[0]], stem, output=out)
    return planted(square, node, root, outputs=[square.output[0], node.output[0], out])


@fault("mode")
def path_dropped(g, rng):
    """A branch left out for one of the batch and made larger for the others, as in training."""
    sites = [(n, i) for n, i in _residuals(g) if g.shape(n.output[0])[0] in (2, 3)]
    found = pick(rng, sites)
    if found is None:
        return None
    node, i = found
    shape = g.shape(node.output[0])
    kept = np.full((shape[0], *[1] * (len(shape) - 1)), 1 / 0.8, np.float32)
    kept[0] = 0
    part = g.insert(node, "Mul", [node.input[1 - i], g.add_constant(kept, node.output[0] + "__kept")], node.output[0] + "__path")
    node.input[1 - i] = part.output[0]
    return planted(part, node, outputs=[part.output[0], node.output[0]])


@fault("mode")
def noise_left_on(g, rng):
    """Noise of the training added to what a product gives."""
    sites = [n.output[0] for n in g.of("MatMul", "Gemm", "Conv") if g.computed(n.output[0]) and not g.is_output(n.output[0])]
    value = pick(rng, sites)
    if value is None:
        return None
    noise = (rng.standard_normal(g.shape(value)) * 0.1 * g.value(value).std()).astype(np.float32)
    made, late = _behind(g, value, value + "__noise", "Add", [g.add_constant(noise, value + "__drawn")])
    return planted(late)


@fault("operand_order")
def quotient_turned(g, rng):
    """What is to be divided by a computed value divides it, and so with differences."""
    node = pick(rng, (n for n in g.of("Sub", "Div") if all(g.computed(i) for i in n.input) and n.input[0] != n.input[1] and (n.op_type == "Sub" or np.abs(g.value(n.input[0])).min() > 1e-3)))
    if node is None:
        return None
    node.input[0], node.input[1] = node.input[1], node.input[0]
    return planted(node)


@fault("residual")
def earlier_added(g, rng):
    """The sum of an earlier layer added once more to a later one."""
    order = {o: k for k, n in enumerate(g.nodes) for o in n.output}
    residuals = list({n.name: n for n, _ in _residuals(g)}.values())
    sites = [(n, m.output[0]) for n in residuals for m in residuals if order[m.output[0]] < order[n.output[0]] and g.shape(m.output[0]) == g.shape(n.output[0]) and m.output[0] not in n.input and not g.is_output(n.output[0])]
    found = pick(rng, sites)
    if found is None:
        return None
    node, other = found
    out = g.rename_output(node, 0, g.fresh(node.output[0] + "__once"))
    late = g.insert_after(node, "Add", [node.output[0], other], out + "__earlier", output=out)
    return planted(node, late, outputs=[node.output[0], out])


@fault("gate_order")
def input_gates(g, rng):
    """The gates of the weight for what comes in alone in another library's order."""
    node = pick(rng, (n for n in g.of("LSTM", "GRU") if g.constant(n.input[1]) is not None))
    if node is None:
        return None
    w, order = g.constant(node.input[1]), [0, 2, 3, 1] if node.op_type == "LSTM" else [1, 0, 2]
    split = w.reshape(w.shape[0], len(order), -1, w.shape[2])
    node.input[1] = g.add_constant(np.ascontiguousarray(split[:, order]).reshape(w.shape), node.input[1] + "__z")
    return planted(node, outputs=[o for o in node.output if o])


@fault("padding")
def border_reads_next_row(g, rng):
    """No check of the columns: the border of a row holds the end of the row before and the beginning of the next."""
    found = pick(rng, [(n, p) for n, p in _bordered(g) if len(p) == 2 and 0 < p[1] < g.shape(n.input[0])[3]])
    if found is None:
        return None
    had = _had(g)
    node, (rows, columns) = found
    b, c, h, w = g.shape(node.input[0])
    stem = node.output[0] + "__flat"
    flat = g.insert(node, "Reshape", [node.input[0], _ints(g, [b, c, h * w], stem)], stem).output[0]
    wide = g.insert(node, "Pad", [flat, _ints(g, [0, 0, columns, 0, 0, columns], stem)], stem).output[0]
    places = np.arange(h)[:, None] * w + np.arange(w + 2 * columns)[None]
    read = g.insert(node, "Gather", [wide, g.add_constant(places.astype(np.int64), stem)], stem, axis=2).output[0]
    node.input[0] = read
    set_attribute(node, "pads", [rows, 0, rows, 0])
    return _all_of(g, had, node, outputs=[read, node.output[0]])
