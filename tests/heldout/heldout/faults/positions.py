"""Rotary tables and relative positions."""
import numpy as np

from .registry import Planted, fault, pick, planted


def _rotations(g):
    """Each rotate-half: the negation, the concatenation that reads it, the value it rotates, and the sum that ends it."""
    found = []
    for neg in g.of("Neg"):
        for cat in g.consumers(neg.output[0]):
            if cat.op_type != "Concat" or len(cat.input) != 2:
                continue
            half = g.producer(neg.input[0])
            product = next((m for m in g.consumers(cat.output[0]) if m.op_type == "Mul"), None)
            total = next((a for a in g.consumers(product.output[0]) if a.op_type == "Add"), None) if product is not None else None
            if half is not None and total is not None:
                found.append((neg, cat, half.input[0], product, total))
    return found


@fault("rope")
def rope_sign(g, rng):
    """The negation dropped, or on the other half."""
    found = pick(rng, _rotations(g))
    if found is None:
        return None
    neg, cat, *_ = found
    if rng.integers(2):
        neg.op_type = "Identity"
        return planted(neg, cat, outputs=[neg.output[0], cat.output[0]])
    source, other = neg.input[0], cat.input[1 - list(cat.input).index(neg.output[0])]
    neg.input[0] = other
    g.nodes.remove(neg)
    at = g.position(cat)
    g.nodes.insert(at, neg)
    first = list(cat.input).index(neg.output[0])
    cat.input[first], cat.input[1 - first] = source, g.nodes[at].output[0]
    return planted(g.nodes[at], cat, outputs=[g.nodes[at].output[0], cat.output[0]])


@fault("rope")
def rope_interleave(g, rng):
    """Neighbouring features turned together where halves are meant."""
    found = pick(rng, _rotations(g))
    if found is None:
        return None
    _, cat, x, _, _ = found
    shape, stem = list(g.shape(x)), cat.output[0] + "__pairs"
    pairs = g.add_constant(np.array([*shape[:-1], shape[-1] // 2, 2], np.int64), stem + "_shape")
    flat = g.add_constant(np.array(shape, np.int64), stem + "_flat")
    signs = g.add_constant(np.array([-1, 1], np.float32), stem + "_signs")
    swap = g.add_constant(np.array([1, 0], np.int64), stem + "_swap")
    a = g.insert(cat, "Reshape", [x, pairs], stem)
    b = g.insert(cat, "Gather", [a.output[0], swap], stem, axis=len(shape))
    c = g.insert(cat, "Mul", [b.output[0], signs], stem)
    out = cat.output[0]
    cat.output[0] = g.fresh(out + "__unused")
    d = g.insert(cat, "Reshape", [c.output[0], flat], stem, output=out)
    g.remove(cat)
    return planted(a, b, c, d)


def _table_inputs(g, found):
    """(node, index) of the two products that read a cosine and a sine table, for one rotation."""
    _, _, x, product, total = found
    other = next((g.producer(i) for i in total.input if i != product.output[0]), None)
    pairs = []
    for m in (other, product):
        if m is None or m.op_type != "Mul":
            return None
        pairs += [(m, i) for i, name in enumerate(m.input) if g.value(name) is not None and g.value(name).ndim >= 2 and np.abs(g.value(name)).max() <= 1.0001 and name != x][:1]
    return pairs if len(pairs) == 2 else None


def _retable(g, sites, change):
    """Gives rotations other tables; `change` maps positions and frequency exponents to angles."""
    nodes, outputs = [], []
    for found, ((m_cos, i), (m_sin, j)) in sites:
        cos = g.value(m_cos.input[i])
        length, width = cos.shape[-2:]
        exponent = np.tile(np.arange(width // 2) / (width // 2), 2)
        angles = change(np.arange(length)[:, None], exponent[None])
        for m, k, f in ((m_cos, i, np.cos), (m_sin, j, np.sin)):
            m.input[k] = g.add_constant(np.broadcast_to(f(angles), cos.shape).astype(np.float32), m.output[0] + "__table")
        for m in (m_cos, m_sin, found[-1]):
            nodes.append(m.name)
            outputs.append(m.output[0])
    return Planted(nodes, outputs, "Mul") if nodes else None


def _tables(g):
    return [(f, t) for f in _rotations(g) if (t := _table_inputs(g, f))]


def _retable_one(g, rng, change):
    """Query or key of one layer."""
    site = pick(rng, _tables(g))
    return _retable(g, [site], change) if site else None


@fault("rope")
def rope_base(g, rng):
    """Frequencies of another base."""
    base = pick(rng, [1e5, 500.0, 1e6])
    return _retable_one(g, rng, lambda p, e: p / base ** e)


@fault("rope")
def rope_scaling(g, rng):
    """Positions stretched, as for a longer context."""
    return _retable_one(g, rng, lambda p, e: p / 2 / 1e4 ** e)


@fault("rope")
def rope_position(g, rng):
    """Positions that start at one, for one of query and key only."""
    return _retable_one(g, rng, lambda p, e: (p + 1) / 1e4 ** e)


@fault("rope")
def rope_everywhere(g, rng):
    """Frequencies of another base for all layers at once, in the tables or in the graph that computes them."""
    base = pick(rng, [1e5, 2e3])
    trig = [n for n in g.of("Cos", "Sin") if (c := g.value(n.input[0])) is not None and c.ndim >= 2]
    if len(trig) != 2 or trig[0].input[0] != trig[1].input[0]:
        return _retable(g, _tables(g), lambda p, e: p / base ** e)
    old = g.value(trig[0].input[0])
    length, width = old.shape[-2:]
    exponent = np.tile(np.arange(width // 2) / (width // 2), 2)
    angles = np.broadcast_to(np.arange(length)[:, None] / base ** exponent, old.shape).astype(np.float32)
    name = g.add_constant(angles, trig[0].output[0] + "__angles")
    for n in trig:
        n.input[0] = name
    # the tables, what only carries them on, and the products that first use them
    reached, queue = [], [n.output[0] for n in trig]
    while queue:
        v = queue.pop()
        reached.append(v)
        for c in g.consumers(v):
            if c.op_type in ("Cast", "Unsqueeze") or c.op_type == "Mul" and any(g.scalar(i) == 1.0 for i in c.input):
                queue.append(c.output[0])
            else:
                reached.append(c.output[0])
    return Planted([n.name for n in trig], list(dict.fromkeys(reached)), "Cos")


@fault("rope")
def relative_flip(g, rng):
    """Relative positions with the other sign: before and after change places."""
    sites = [n for n in g.of("Gather") if (t := g.constant(n.input[0])) is not None and t.ndim == 2 and (i := g.value(n.input[1])) is not None
             and i.ndim >= 2 and i.shape[-1] == i.shape[-2] > 4 and not np.array_equal(i, i.swapaxes(-1, -2))]
    node = pick(rng, sites)
    if node is None:
        return None
    rank = len(g.shape(node.input[1]))
    turned = g.insert(node, "Transpose", [node.input[1]], node.output[0] + "__turned", perm=[*range(rank - 2), rank - 1, rank - 2])
    node.input[1] = turned.output[0]
    return planted(turned, node)


@fault("rope")
def relative_buckets(g, rng):
    """Far relative positions fall into other buckets."""
    sites = [n for n in g.of("Gather") if (t := g.constant(n.input[0])) is not None and t.ndim == 2 and (i := g.value(n.input[1])) is not None
             and i.ndim >= 2 and i.shape[-1] == i.shape[-2] > 4 and i.max() - i.min() > 4]
    node = pick(rng, sites)
    if node is None:
        return None
    index = g.value(node.input[1])
    cap = g.add_constant(np.asarray(index.max() - 2, index.dtype), node.output[0] + "__cap")
    capped = g.insert(node, "Min", [node.input[1], cap], node.output[0] + "__capped")
    node.input[1] = capped.output[0]
    return planted(capped, node)
