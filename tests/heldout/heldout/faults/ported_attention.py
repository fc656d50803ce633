"""What goes wrong when attention is ported: masks, biases, heads, rotary tables. Second set."""
import numpy as np
from onnx import TensorProto

from ..graph import attribute
from .attention import _mask_adds
from .registry import Planted, fault, pick, planted
from .spellings import _scores


def _swapped(rank):
    return [*range(rank - 2), rank - 1, rank - 2]


def _lopsided(v):
    """A matrix (or several) that its transpose would not replace."""
    return v is not None and v.ndim >= 2 and v.shape[-1] == v.shape[-2] > 3 and not np.array_equal(v, v.swapaxes(-1, -2))


@fault("mask")
def mask_transposed(g, rng):
    """Queries and keys change places in the mask."""
    sites = [(n, i) for n, i in _mask_adds(g)] + [(n, 0) for n in g.of("Where") if g.is_float(n.output[0])]
    found = pick(rng, [(n, i) for n, i in sites if _lopsided(g.value(n.input[i]))])
    if found is None:
        return None
    node, i = found
    turned = g.insert(node, "Transpose", [node.input[i]], node.output[0] + "__turned", perm=_swapped(len(g.shape(node.input[i]))))
    node.input[i] = turned.output[0]
    return planted(turned, node, outputs=[turned.output[0], node.output[0]])


@fault("mask")
def mask_of_first(g, rng):
    """The padding of the first sample taken for all of them."""
    sites = [i.name for i in g.model.graph.input if "mask" in i.name and (v := g.value(i.name)).ndim == 2 and not (v == v[:1]).all()]
    name = pick(rng, sites)
    if name is None:
        return None
    readers = g.consumers(name)
    rows = g.add_constant(np.zeros(g.shape(name)[0], np.int64), name + "__rows")
    first = g.insert(g.nodes[0], "Gather", [name, rows], name + "__first", axis=0)
    g.redirect(name, first.output[0], keep={first.name})
    return planted(first, *readers, outputs=[first.output[0], *(o for r in readers for o in r.output)])


@fault("mask")
def mask_after_softmax(g, rng):
    """Hidden places set to zero behind the softmax, so that the rest does not sum to one."""
    sites = [(n, i, s) for n, i in _mask_adds(g) for s in g.consumers(n.output[0]) if s.op_type == "Softmax"]
    found = pick(rng, sites)
    if found is None:
        return None
    node, i, softmax = found
    seen = g.add_constant((g.value(node.input[i]) > -1e4).astype(np.float32), node.output[0] + "__seen")
    node.input[i] = g.add_constant(np.zeros(1, np.float32), node.output[0] + "__nothing")
    out = g.rename_output(softmax, 0, g.fresh(softmax.output[0] + "__all"))
    hidden = g.insert_after(softmax, "Mul", [softmax.output[0], seen], out + "__hidden", output=out)
    return planted(node, softmax, hidden, outputs=[node.output[0], softmax.output[0], out])


@fault("mask")
def diagonal_hidden(g, rng):
    """No query sees itself."""
    found = pick(rng, _scores(g))
    if found is None:
        return None
    node, rows, columns = found
    c = g.add_constant(np.where(np.eye(rows, columns) > 0, np.float32(-1e9), np.float32(0)), node.output[0] + "__diagonal")
    added = g.insert(node, "Add", [node.input[0], c], node.output[0] + "__masked")
    node.input[0] = added.output[0]
    return planted(added, node, outputs=[added.output[0], node.output[0]])


@fault("mask")
def edge_counted(g, rng):
    """A border that belongs to the window, or does not: smaller against smaller or equal."""
    other = {"Less": "LessOrEqual", "LessOrEqual": "Less", "Greater": "GreaterOrEqual", "GreaterOrEqual": "Greater"}
    sites = [n for n in g.of(*other) if (v := g.value(n.output[0])) is not None and v.size > 8 and (a := g.value(n.input[0])) is not None and a.dtype.kind == "i"]
    node = pick(rng, sites)
    if node is None:
        return None
    node.op_type = other[node.op_type]
    return planted(node)


@fault("activation")
def softmax_and_one(g, rng):
    """One more in the sum below, as if there were a further place with score zero."""
    node = pick(rng, (n for n in g.of("Softmax") if g.computed(n.output[0]) and attribute(n, "axis", -1) % len(g.shape(n.input[0])) == len(g.shape(n.input[0])) - 1))
    if node is None:
        return None
    shape, stem = g.shape(node.input[0]), node.output[0] + "__sink"
    sink = g.add_constant(np.zeros((*shape[:-1], 1), np.float32), stem)
    wide = g.insert(node, "Concat", [node.input[0], sink], stem, axis=-1)
    node.input[0] = wide.output[0]
    out = g.rename_output(node, 0, g.fresh(stem + "_wide"))
    bounds = [g.add_constant(np.array([v], np.int64), stem + "_bound") for v in (0, shape[-1], len(shape) - 1)]
    last = g.insert_after(node, "Slice", [node.output[0], *bounds], stem, output=out)
    return planted(wide, node, last, outputs=[wide.output[0], node.output[0], out])


def _score_biases(g):
    """(sum, index of the bias) right before a softmax, where the bias is a number for each pair of places and no mask."""
    sites = []
    for s in g.of("Softmax"):
        n = g.producer(s.input[0])
        while n is not None and n.op_type == "Add":
            for i, name in enumerate(n.input):
                v = g.value(name)
                if _lopsided(v) and v.dtype == np.float32 and v.min() > -1e4 and np.ptp(v) > 0 and g.computed(n.input[1 - i]) and not any(
                        p.op_type in ("MatMul", "Gemm") for p in [g.producer(name)] if p is not None):
                    sites.append((n, i))
            n = next((p for p in map(g.producer, n.input) if p is not None and p.op_type == "Add"), None)
    return sites


@fault("layout")
def score_bias_transposed(g, rng):
    """Bias of positions with queries and keys exchanged."""
    found = pick(rng, _score_biases(g))
    if found is None:
        return None
    node, i = found
    turned = g.insert(node, "Transpose", [node.input[i]], node.output[0] + "__turned", perm=_swapped(len(g.shape(node.input[i]))))
    node.input[i] = turned.output[0]
    return planted(turned, node, outputs=[turned.output[0], node.output[0]])


@fault("scale")
def scale_over_bias(g, rng):
    """The scores are scaled after the bias was added: scale * (scores + bias)."""
    sites = []
    for add, i in _score_biases(g):
        m = g.producer(add.input[1 - i])
        if m is not None and m.op_type in ("Mul", "Div") and len(g.consumers(m.output[0])) == 1:
            sites += [(add, m, k) for k, name in enumerate(m.input) if g.scalar(name) is not None and (k == 1 or m.op_type == "Mul")]
    found = pick(rng, sites)
    if found is None:
        return None
    add, m, k = found
    op, factor = m.op_type, m.input[k]
    x = m.input[1 - k]
    m.op_type = "Identity"
    del m.input[:]
    m.input.append(x)
    out = g.rename_output(add, 0, g.fresh(add.output[0] + "__sum"))
    late = g.insert_after(add, op, [add.output[0], factor], out + "__scaled", output=out)
    return planted(m, add, late, outputs=[m.output[0], add.output[0], out])


@fault("index")
def heads_shifted(g, rng):
    """Each head reads the keys or values of its neighbour."""
    sites = [(n, i) for n in g.of("MatMul") for i in (0, 1) if all(g.computed(x) for x in n.input) and len(g.shape(n.input[i])) == 4 and g.shape(n.input[i])[1] > 1]
    found = pick(rng, sites)
    if found is None:
        return None
    node, i = found
    order = g.add_constant(np.roll(np.arange(g.shape(node.input[i])[1]), 1).astype(np.int64), node.output[0] + "__order")
    moved = g.insert(node, "Gather", [node.input[i], order], node.output[0] + "__heads", axis=1)
    node.input[i] = moved.output[0]
    return planted(moved, node, outputs=[moved.output[0], node.output[0]])


def _turns(g):
    """Rotations by what they compute, x * cos + turned x * sin: (sum, (product, index of cos), (product, index of sin), x)."""
    found = []
    for add in g.of("Add"):
        parts = [g.producer(i) for i in add.input]
        if not g.computed(add.output[0]) or any(p is None or p.op_type != "Mul" for p in parts):
            continue
        tables = [next(((m, i) for i, name in enumerate(m.input) if (v := g.value(name)) is not None and v.ndim >= 2 and v.size and np.abs(v).max() <= 1.0001), None) for m in parts]
        if None in tables:
            continue
        a, b = (g.value(m.input[i]) for m, i in tables)
        if a.shape == b.shape and np.allclose(a ** 2 + b ** 2, 1, atol=1e-4) and a.size > 8:
            cos, sin = tables if a.reshape(-1)[0] > 0.9 else tables[::-1]
            found.append((add, cos, sin, cos[0].input[1 - cos[1]]))
    return [f for f in found if g.shape(f[3]) == g.shape(f[0].output[0])]


def _retabled(g, rng, change):
    """One rotation with tables made from the old ones."""
    found = pick(rng, _turns(g))
    if found is None:
        return None
    add, (m, i), (n, j), _ = found
    cos, sin = change(g.value(m.input[i]), g.value(n.input[j]))
    m.input[i], n.input[j] = (g.add_constant(np.ascontiguousarray(v).astype(np.float32), add.output[0] + "__table") for v in (cos, sin))
    return planted(m, n, add, outputs=[m.output[0], n.output[0], add.output[0]])


@fault("rope")
def rope_skipped(g, rng):
    """One of query and key is not turned."""
    found = pick(rng, _turns(g))
    if found is None:
        return None
    add, _, _, x = found
    add.op_type = "Identity"
    del add.input[:]
    add.input.append(x)
    return planted(add)


@fault("rope")
def rope_twice(g, rng):
    """Turned by twice the angle, as when a cache holds keys that were turned already."""
    return _retabled(g, rng, lambda c, s: (c * c - s * s, 2 * s * c))


@fault("rope")
def rope_exchanged(g, rng):
    """Sine where cosine is meant."""
    return _retabled(g, rng, lambda c, s: (s, c))


@fault("rope")
def rope_reversed(g, rng):
    """The frequencies in the other order."""
    return _retabled(g, rng, lambda c, s: (c[..., ::-1], s[..., ::-1]))


@fault("rope")
def rope_from_end(g, rng):
    """Positions counted from the end."""
    def change(c, s):
        axis = next((a for a in range(c.ndim - 1) if c.shape[a] > 1 and np.allclose(np.take(c, 0, a), 1, atol=1e-5)), c.ndim - 2)
        return np.flip(c, axis), np.flip(s, axis)
    return _retabled(g, rng, change)


@fault("rope")
def angles_rounded(g, rng):
    """Positions times frequencies kept in half precision."""
    cos = [n for n in g.of("Cos") if (v := g.value(n.input[0])) is not None and v.ndim >= 2 and v.dtype == np.float32 and v.max() > 4]
    pairs = [(c, s) for c in cos for s in g.of("Sin") if c.input[0] == s.input[0]]
    found = pick(rng, pairs)
    if found is None:
        return None
    first = min(found, key=g.position)
    narrow = g.insert(first, "Cast", [first.input[0]], first.output[0] + "__narrow", to=TensorProto.FLOAT16)
    wide = g.insert(first, "Cast", [narrow.output[0]], first.output[0] + "__wide", to=TensorProto.FLOAT)
    for n in found:
        n.input[0] = wide.output[0]
    return planted(narrow, wide, *found, outputs=[narrow.output[0], wide.output[0], *(n.output[0] for n in found)])


@fault("rope")
def sinusoid_halves(g, rng):
    """A table of sines and cosines whose halves change places."""
    sites = []
    for n in g.nodes:
        for i, name in enumerate(n.input):
            v = g.constant(name)
            if v is not None and v.dtype == np.float32 and v.ndim >= 2 and v.shape[-1] % 2 == 0 and v.shape[-1] >= 8 and v.size > 32:
                a, b = np.split(v, 2, -1)
                if np.allclose(a ** 2 + b ** 2, 1, atol=1e-4):
                    sites.append((n, i, np.concatenate([b, a], -1)))
    found = pick(rng, sites)
    if found is None:
        return None
    node, i, new = found
    node.input[i] = g.add_constant(new, node.input[i] + "__z")
    return Planted([node.name], list(node.output), node.op_type)


@fault("index")
def positions_clamped(g, rng):
    """Positions beyond the middle all read one row, as when a table is shorter than the sequence."""
    sites = []
    for n in g.of("Add"):
        for i, name in enumerate(n.input):
            c, x = g.constant(name), g.shape(n.input[1 - i])
            if c is not None and c.dtype == np.float32 and c.ndim in (2, 3) and x is not None and len(x) == 3 and c.shape[-2:] == x[-2:] and c.shape[-2] > 4:
                sites.append((n, i, np.take(c, np.minimum(np.arange(c.shape[-2]), c.shape[-2] // 2), -2)))
    for n in g.of("Gather"):
        t, c = g.constant(n.input[0]), g.constant(n.input[1])
        if t is not None and t.ndim == 2 and c is not None and c.size > 4 and c.dtype.kind == "i":
            sites.append((n, 1, np.minimum(c, np.asarray(np.median(c), c.dtype))))
    found = pick(rng, sites)
    if found is None:
        return None
    node, i, new = found
    node.input[i] = g.add_constant(new, node.input[i] + "__z")
    return planted(node)


@fault("operand_order")
def token_last(g, rng):
    """The learned token behind the sequence instead of in front of it."""
    sites = [n for n in g.of("Concat") if len(n.input) == 2 and g.computed(n.output[0]) and len(g.shape(n.output[0])) == 3
             and any(g.shape(i) is not None and g.shape(i)[1:2] == (1,) and i not in g.live for i in n.input)]
    node = pick(rng, sites)
    if node is None:
        return None
    node.input[0], node.input[1] = node.input[1], node.input[0]
    return planted(node)
