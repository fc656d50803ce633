"""Off by one, wrong axis, wrong bounds, wrong permutation, wrong choice."""
import itertools

import numpy as np

from ..graph import attribute, set_attribute
from .registry import fault, pick, planted

FAR = 2 ** 31 - 1


@fault("index")
def off_by_one(g, rng):
    """A table is read one row before."""
    sites = [n for n in g.of("Gather") if (t := g.constant(n.input[0])) is not None and t.ndim == 2 and (i := g.value(n.input[1])) is not None and i.size > 1 and i.min() > 0]
    node = pick(rng, sites)
    if node is None:
        return None
    dtype = g.value(node.input[1]).dtype
    moved = g.insert(node, "Sub", [node.input[1], g.add_constant(np.asarray(1, dtype), node.output[0] + "__one")], node.output[0] + "__moved")
    node.input[1] = moved.output[0]
    return planted(moved, node)


@fault("index")
def position_shift(g, rng):
    """Learned positions one place late."""
    sites = []
    for n in g.of("Add"):
        for i, name in enumerate(n.input):
            c, x = g.constant(name), g.shape(n.input[1 - i])
            if c is not None and c.dtype == np.float32 and c.ndim in (2, 3) and x is not None and len(x) == 3 and c.shape[-2:] == x[-2:] and c.shape[-2] > 4:
                sites.append((n, i, c, -2))
    for n in g.of("Gather"):
        t, c = g.constant(n.input[0]), g.constant(n.input[1])
        if t is not None and t.ndim == 2 and c is not None and c.size > 4 and c.dtype.kind == "i":
            sites.append((n, 1, c, -1))
    found = pick(rng, sites)
    if found is None:
        return None
    node, i, c, axis = found
    node.input[i] = g.add_constant(np.ascontiguousarray(np.roll(c, 1, axis)), node.input[i] + "__z")
    return planted(node)


@fault("index")
def slice_bounds(g, rng):
    """As long as meant, one place off."""
    sites = []
    for n in g.of("Slice"):
        if not all(g.constant(i) is not None and g.constant(i).size == 1 for i in n.input[1:4]) or not g.computed(n.output[0]):
            continue
        start, end, axis = (int(g.constant(i).reshape(-1)[0]) for i in n.input[1:4])
        size = g.shape(n.input[0])[axis]
        start, end = (start + size if start < 0 else start), (min(end, size) if end >= 0 else end + size)
        if start > 0:
            sites.append((n, start - 1, end - 1))
        if end < size:
            sites.append((n, start + 1, end + 1))
    found = pick(rng, sites)
    if found is None:
        return None
    node, start, end = found
    node.input[1] = g.add_constant(np.array([start], np.int64), node.output[0] + "__start")
    node.input[2] = g.add_constant(np.array([end], np.int64), node.output[0] + "__end")
    return planted(node)


@fault("index")
def gather_place(g, rng):
    """One place is taken out of a tensor: the neighbour."""
    sites = []
    for n in g.of("Gather"):
        c = g.constant(n.input[1])
        if c is not None and c.size == 1 and g.computed(n.output[0]) and g.computed(n.input[0]) or c is not None and c.size == 1 and n.input[0] in {i.name for i in g.model.graph.input}:
            sites.append((n, c, g.shape(n.input[0])[attribute(n, "axis", 0)]))
    found = pick(rng, [s for s in sites if s[2] > 1])
    if found is None:
        return None
    node, c, size = found
    node.input[1] = g.add_constant(((c + 1) % size).astype(c.dtype), node.input[1] + "__z")
    return planted(node)


def _axes(g, node):
    """The axes of a reduction and where they stand: an attribute or the second input."""
    listed = attribute(node, "axes")
    if listed is not None:
        return [int(a) for a in listed], None
    c = g.constant(node.input[1]) if len(node.input) > 1 else None
    return (None, None) if c is None else ([int(a) for a in c.reshape(-1)], 1)


@fault("axis")
def reduce_axis(g, rng):
    """Reduced along the neighbouring axis."""
    sites = []
    for n in g.nodes:
        if n.op_type.startswith("Reduce") and g.is_float(n.input[0]):
            axes, _ = _axes(g, n)
            shape = g.shape(n.input[0])
            if axes and len(axes) == 1 and shape is not None and len(shape) > 1:
                own = axes[0] % len(shape)
                sites += [(n, a) for a in range(len(shape)) if a != own and shape[a] > 1 and (attribute(n, "keepdims", 1) or shape[a] == shape[own])]
    found = pick(rng, sites)
    if found is None:
        return None
    node, axis = found
    if _axes(g, node)[1] is None:
        set_attribute(node, "axes", [axis])
    else:
        node.input[1] = g.add_constant(np.array([axis], np.int64), node.input[1] + "__z")
    return planted(node)


@fault("index")
def top_count(g, rng):
    """One fewer chosen than meant, or the smallest instead of the largest."""
    node = pick(rng, g.of("TopK"))
    if node is None:
        return None
    k = g.constant(node.input[1])
    if int(k.reshape(-1)[0]) > 1 and rng.integers(2):
        node.input[1] = g.add_constant(k - 1, node.input[1] + "__z")
    else:
        set_attribute(node, "largest", 0)
    return planted(node, outputs=list(node.output))


@fault("layout")
def wrong_perm(g, rng):
    """Another permutation that gives the same shape."""
    sites = []
    for n in g.of("Transpose"):
        shape, perm = g.shape(n.input[0]), attribute(n, "perm")
        if shape is None or perm is None or not g.computed(n.output[0]):
            continue
        for other in itertools.permutations(range(len(shape))):
            if list(other) != list(perm) and [shape[i] for i in other] == [shape[i] for i in perm]:
                sites.append((n, list(other)))
    found = pick(rng, sites)
    if found is None:
        return None
    set_attribute(found[0], "perm", found[1])
    return planted(found[0])


@fault("layout")
def transpose_missing(g, rng):
    """The memory is given the new shape without being moved."""
    node = pick(rng, (n for n in g.of("Transpose") if g.computed(n.output[0]) and g.shape(n.output[0]) != () and sum(d > 1 for d in g.shape(n.output[0])) > 1))
    if node is None:
        return None
    node.op_type = "Reshape"
    node.input.append(g.add_constant(np.array(g.shape(node.output[0]), np.int64), node.output[0] + "__shape"))
    del node.attribute[:]
    return planted(node)


@fault("layout")
def reshape_order(g, rng):
    """Merged in another order: the last two axes are swapped before a reshape."""
    sites = [n for n in g.of("Reshape") if g.computed(n.output[0]) and len(g.shape(n.input[0]) or ()) >= 3 and len(g.shape(n.output[0])) < len(g.shape(n.input[0])) and min(g.shape(n.input[0])[-2:]) > 1]
    node = pick(rng, sites)
    if node is None:
        return None
    rank = len(g.shape(node.input[0]))
    shape = list(g.shape(node.output[0]))
    turned = g.insert(node, "Transpose", [node.input[0]], node.output[0] + "__turned", perm=[*range(rank - 2), rank - 1, rank - 2])
    node.input[0] = turned.output[0]
    node.input[1] = g.add_constant(np.array(shape, np.int64), node.input[1] + "__z")
    return planted(turned, node)
