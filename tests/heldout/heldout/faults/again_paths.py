"""What goes wrong in how values reach each other: places, caches, edges, choices, masks, encodings of positions. Third set."""
import numpy as np

from ..graph import attribute, set_attribute
from .again_layers import _hand_on, _made_by, _reached
from .registry import fault, pick, planted


def _frequencies(g):
    """(node, index of the constant) where what is encoded is multiplied by frequencies, on the way to sines and cosines."""
    sites = []
    for n in g.of("Mul", "Div"):
        for i in (0, 1) if n.op_type == "Mul" else (1,):
            c = g.value(n.input[i])
            encodes = _reached(g, n.output[0], ("Sin", "Cos"), 2) and not _made_by(g, n.input[1 - i], ("Conv", "ConvTranspose", "MatMul", "Gemm"), 12)
            if n.input[i] not in g.live and n.input[1 - i] in g.live and c is not None and c.dtype == np.float32 and encodes:
                sites.append((n, i, c))
    return sites


@fault("rope")
def frequency_base(g, rng):
    """Another base of the frequencies by which a time or a place is encoded."""
    found = pick(rng, [s for s in _frequencies(g) if s[2].size >= 4])
    if found is None:
        return None
    node, i, c = found
    order = np.argsort(-np.abs(c).reshape(-1)).argsort().reshape(c.shape)
    node.input[i] = g.add_constant((c * np.float32(1.6) ** -order).astype(np.float32), node.input[i] + "__z")
    return planted(node)


@fault("rope")
def time_scaled(g, rng):
    """A time between 0 and 1000 encoded as one between 0 and 1."""
    found = pick(rng, [s for s in _frequencies(g) if s[2].size >= 4])
    if found is None:
        return None
    node, i, c = found
    less = g.insert(node, "Div", [node.input[1 - i], g.add_constant(np.float32(1000), node.output[0] + "__thousand")], node.output[0] + "__less")
    node.input[1 - i] = less.output[0]
    return planted(less, node, outputs=[less.output[0], node.output[0]])


@fault("rope")
def sines_first(g, rng):
    """Sines in front of cosines where the encoding has cosines first, or the other way round."""
    sites = []
    for n in g.of("Concat"):
        made = [p.op_type if (p := g.producer(i)) is not None else "" for i in n.input]
        if sorted(made) == ["Cos", "Sin"] and g.computed(n.output[0]):
            sites.append(n)
    node = pick(rng, sites)
    if node is None:
        return None
    node.input[0], node.input[1] = node.input[1], node.input[0]
    return planted(node)


@fault("operand_order")
def skip_behind(g, rng):
    """What is joined stands in the other order: the skip behind what came up, the new behind the old."""
    sites = [n for n in g.of("Concat") if len(n.input) == 2 and g.shape(n.input[0]) == g.shape(n.input[1]) and all(g.computed(i) for i in n.input)
             and not any((p := g.producer(i)) is not None and p.op_type in ("Cos", "Sin", "Slice", "Split", "Neg") for i in n.input)]
    node = pick(rng, sites)
    if node is None:
        return None
    node.input[0], node.input[1] = node.input[1], node.input[0]
    return planted(node)


@fault("operand_order")
def cache_behind(g, rng):
    """What is kept from before stands behind what is new."""
    inputs = {i.name for i in g.model.graph.input}
    sites = [n for n in g.of("Concat") if len(n.input) == 2 and g.computed(n.output[0]) and g.shape(n.input[0]) != g.shape(n.input[1])
             and any(i in inputs or inputs & set(g.ancestors(i, 4)) and (p := g.producer(i)) is not None and p.op_type in ("Gather", "Squeeze", "Slice", "Split") for i in n.input)]
    node = pick(rng, sites)
    if node is None:
        return None
    node.input[0], node.input[1] = node.input[1], node.input[0]
    return planted(node)


@fault("index")
def cache_of_layer(g, rng):
    """The cache of the next layer."""
    inputs = {i.name for i in g.model.graph.input}
    sites = [n for n in g.of("Gather") if n.input[0] in inputs and (c := g.constant(n.input[1])) is not None and c.size == 1 and g.is_float(n.output[0]) and g.shape(n.input[0])[attribute(n, "axis", 0)] > 1]
    node = pick(rng, sites)
    if node is None:
        return None
    c = g.constant(node.input[1])
    node.input[1] = g.add_constant(((c + 1) % g.shape(node.input[0])[attribute(node, "axis", 0)]).astype(c.dtype), node.input[1] + "__z")
    return planted(node)


@fault("index")
def edge_direction(g, rng):
    """Sources taken for targets at one place."""
    inputs = {i.name: g.value(i.name) for i in g.model.graph.input}
    rows = [n for n in g.of("Gather") if (v := inputs.get(n.input[0])) is not None and v.dtype.kind == "i" and v.ndim == 2 and v.shape[0] == 2 and g.constant(n.input[1]) is not None]
    sites = []
    for n in rows:
        for m in rows:
            if int(g.constant(n.input[1])) != int(g.constant(m.input[1])) and n.input[0] == m.input[0]:
                sites += [(c, k, n.output[0], m.output[0]) for c in g.consumers(n.output[0]) if c.op_type in ("Gather", "Unsqueeze") for k in range(len(c.input)) if c.input[k] == n.output[0]]
    found = pick(rng, sites)
    if found is None:
        return None
    node, k, _, other = found
    node.input[k] = other
    return planted(node)


@fault("index")
def other_phase(g, rng):
    """Every second one, begun with the other."""
    sites = []
    for n in g.of("Slice"):
        if len(n.input) > 4 and (step := g.constant(n.input[4])) is not None and (start := g.constant(n.input[1])) is not None and step.size == 1 and int(step.reshape(-1)[0]) == 2 and g.computed(n.output[0]):
            axis = int(g.constant(n.input[3]).reshape(-1)[0])
            if int(start.reshape(-1)[0]) in (0, 1) and g.shape(n.input[0])[axis] % 2 == 0:
                sites.append((n, start))
    found = pick(rng, sites)
    if found is None:
        return None
    node, start = found
    node.input[1] = g.add_constant((1 - start).astype(start.dtype), node.input[1] + "__z")
    return planted(node)


@fault("index")
def smallest_first(g, rng):
    """The least of all where the best are looked for."""
    node = pick(rng, (n for n in g.of("TopK") if g.shape(n.input[0])[attribute(n, "axis", -1)] > g.shape(n.output[0])[attribute(n, "axis", -1)] or attribute(n, "sorted", 1)))
    if node is None:
        return None
    set_attribute(node, "largest", 1 - attribute(node, "largest", 1))
    return planted(node, outputs=[o for o in node.output if o])


@fault("index")
def neighbour_in_batch(g, rng):
    """Each sample is given what belongs to the next one."""
    sites = [i.name for i in g.model.graph.input if (v := g.value(i.name)).ndim >= 2 and 2 <= v.shape[0] <= 4 and v.dtype == np.float32 and len([i for i in g.model.graph.input]) > 1]
    name = pick(rng, sites)
    if name is None:
        return None
    order = g.add_constant(np.roll(np.arange(g.shape(name)[0]), 1).astype(np.int64), name + "__order")
    readers = g.consumers(name)
    node = g.insert(g.nodes[0], "Gather", [name, order], name + "__next", axis=0)
    g.redirect(name, node.output[0], keep={node.name})
    return planted(node, *readers, outputs=[node.output[0], *(o for r in readers for o in r.output)])


@fault("mask")
def padding_pooled(g, rng):
    """A mean over all places, those of the padding too."""
    sites = []
    for n in g.of("Mul", "Where"):
        for i, name in enumerate(n.input[:2] if n.op_type == "Mul" else ()):
            v = g.value(name)
            x = n.input[1 - i]
            if v is not None and name in g.live and v.dtype == np.float32 and v.size < (g.value(x).size if g.value(x) is not None else 0) and set(np.unique(v)) == {0.0, 1.0} and g.shape(x) == g.shape(n.output[0]) and _reached(
                    g, n.output[0], ("ReduceSum",), 3):
                sites.append((n, x))
    found = pick(rng, sites)
    return None if found is None else _hand_on(*found)


@fault("mask")
def branches_exchanged(g, rng):
    """What is chosen where a condition holds and where it does not change places."""
    node = pick(rng, (n for n in g.of("Where") if n.input[0] in g.live and g.is_float(n.output[0]) and (v := g.value(n.input[0])) is not None and v.any() and not v.all()))
    if node is None:
        return None
    node.input[1], node.input[2] = node.input[2], node.input[1]
    return planted(node)


@fault("mask")
def lengths_shorter(g, rng):
    """The last place that counts is hidden, or one more is seen: lengths off by one."""
    inputs = {i.name: g.value(i.name) for i in g.model.graph.input if "length" in i.name}
    sites = [c for name in inputs for c in g.consumers(name)]
    node = pick(rng, sites)
    if node is None:
        return None
    k = next(k for k, i in enumerate(node.input) if i in inputs)
    less = g.insert(node, "Sub", [node.input[k], g.add_constant(np.int64(1), node.output[0] + "__one")], node.output[0] + "__less")
    node.input[k] = less.output[0]
    return planted(less, node, outputs=[less.output[0], node.output[0]])


@fault("axis")
def other_corner(g, rng):
    """A product over the third corner that sums along columns where rows are meant."""
    sites = []
    for n in g.of("Einsum"):
        equation = attribute(n, "equation").decode().replace(" ", "")
        left, out = equation.split("->")
        for k, term in enumerate(left.split(",")):
            if term.isalpha() and len(term) >= 3:
                sites += [(n, k, a, a + 1) for a in range(len(term) - 1) if g.shape(n.input[k])[a] == g.shape(n.input[k])[a + 1] > 1 and (term[a] in out) != (term[a + 1] in out)]
    found = pick(rng, sites)
    if found is None:
        return None
    node, k, a, b = found
    left, out = attribute(node, "equation").decode().replace(" ", "").split("->")
    terms = [list(t) for t in left.split(",")]
    terms[k][a], terms[k][b] = terms[k][b], terms[k][a]
    set_attribute(node, "equation", ",".join("".join(t) for t in terms) + "->" + out)
    return planted(node)


@fault("index")
def sums_of_next(g, rng):
    """Differences taken backwards that are to be taken forwards: a running sum read one place further on."""
    node = pick(rng, (n for n in g.of("CumSum") if g.computed(n.output[0])))
    if node is None:
        return None
    axis = int(g.value(node.input[1]).reshape(-1)[0])
    size = g.shape(node.output[0])[axis]
    if size < 3:
        return None
    order = g.add_constant(np.minimum(np.arange(size) + 1, size - 1).astype(np.int64), node.output[0] + "__order")
    out = g.rename_output(node, 0, g.fresh(node.output[0] + "__here"))
    late = g.insert_after(node, "Gather", [node.output[0], order], out + "__late", output=out, axis=axis)
    return planted(node, late, outputs=[out])


@fault("residual")
def branches_in_line(g, rng):
    """The second branch reads the result of the first where both are meant to read the same."""
    sites = []
    for n in g.of("Add"):
        a, b = n.input
        if not (g.computed(a) and g.computed(b)):
            continue
        for reader in g.nodes:
            if reader.op_type in ("Conv", "MatMul", "Gemm", "LayerNormalization") and reader.input[0] == a and b not in [*reader.output, *g.ancestors(a, 40)] and g.shape(b) == g.shape(a) and reader.output[0] not in g.ancestors(
                    b, 40) and a in g.ancestors(b, 40) and b != reader.output[0]:
                sites.append((reader, b))
    found = pick(rng, sites)
    if found is None:
        return None
    node, other = found
    node.input[0] = other
    return planted(node)


@fault("index")
def channels_grouped(g, rng):
    """Channels cut into (groups, each) where (each, groups) is meant, in a plain cut without anything moved afterwards."""
    sites = []
    for n in g.of("Split"):
        axis = attribute(n, "axis", 0)
        shapes = {g.shape(o) for o in n.output}
        if len(shapes) == 1 and len(n.output) > 1 and g.computed(n.output[0]) and g.shape(n.output[0])[axis] > 1:
            sites.append((n, axis, len(n.output)))
    found = pick(rng, sites)
    if found is None:
        return None
    node, axis, count = found
    size = g.shape(node.input[0])[axis]
    order = g.add_constant(np.arange(size).reshape(-1, count).T.reshape(-1).astype(np.int64), node.output[0] + "__order")
    moved = g.insert(node, "Gather", [node.input[0], order], node.output[0] + "__moved", axis=axis)
    node.input[0] = moved.output[0]
    return planted(moved, node, outputs=[moved.output[0], *node.output])
