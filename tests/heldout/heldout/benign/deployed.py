"""What compilers and deployment tools make of layers without changing what they compute. Fifth set."""
import numpy as np

from ..graph import attribute
from .lowered import _become, _ints
from .registry import rewrite, some


@rewrite
def attention_in_blocks(g, rng):
    """The keys in two blocks: each with its own largest score, put together by what the larger of the two says."""
    changed = False
    for n in some(rng, (n for n in g.of("Softmax") if g.computed(n.output[0]) and len(r := g.consumers(n.output[0])) == 1 and r[0].op_type == "MatMul" and r[0].input[0] == n.output[0] and len(g.shape(n.input[0])) == len(g.shape(r[0].input[1])) >= 3
                        and g.shape(n.input[0])[-1] >= 8 and attribute(n, "axis", -1) in (-1, len(g.shape(n.input[0])) - 1) and g.value(n.input[0])[..., 0].min() > -1e4), 2):
        r = g.consumers(n.output[0])[0]
        stem, x, v, rank, size = r.output[0] + "__block", n.input[0], r.input[1], len(g.shape(n.input[0])), g.shape(n.input[0])[-1]
        most = total = made = None
        for start, end in ((0, size // 2), (size // 2, size)):
            s = g.insert(r, "Slice", [x, _ints(g, start, stem), _ints(g, end, stem), _ints(g, rank - 1, stem)], stem).output[0]
            u = g.insert(r, "Slice", [v, _ints(g, start, stem), _ints(g, end, stem), _ints(g, rank - 2, stem)], stem).output[0]
            top = g.insert_reduce(r, "ReduceMax", s, [-1], stem).output[0]
            top = top if most is None else g.insert(r, "Max", [most, top], stem).output[0]
            p = g.insert(r, "Exp", [g.insert(r, "Sub", [s, top], stem).output[0]], stem).output[0]
            here, part = g.insert_reduce(r, "ReduceSum", p, [-1], stem).output[0], g.insert(r, "MatMul", [p, u], stem).output[0]
            if most is not None:
                less = g.insert(r, "Exp", [g.insert(r, "Sub", [most, top], stem).output[0]], stem).output[0]
                here = g.insert(r, "Add", [g.insert(r, "Mul", [total, less], stem).output[0], here], stem).output[0]
                part = g.insert(r, "Add", [g.insert(r, "Mul", [made, less], stem).output[0], part], stem).output[0]
            most, total, made = top, here, part
        _become(r, "Div", [made, total])
        g.remove(n)
        changed = True
    return changed


@rewrite
def relu_by_absolute(g, rng):
    """Half of x and its absolute value."""
    sites = some(rng, (n for n in g.of("Relu") if g.computed(n.output[0])), 3)
    for n in sites:
        stem = n.output[0] + "__abs"
        both = g.insert(n, "Add", [n.input[0], g.insert(n, "Abs", [n.input[0]], stem).output[0]], stem)
        _become(n, "Mul", [both.output[0], g.add_constant(np.float32(0.5), stem)])
    return bool(sites)


@rewrite
def bias_expanded(g, rng):
    """A bias stored in the full shape of what it is added to."""
    changed = False
    for n in some(rng, (n for n in g.of("Add") if g.computed(n.output[0]) and any((b := g.constant(i)) is not None and b.ndim == 1 and b.size > 1 for i in n.input)), 3):
        k = next(k for k, i in enumerate(n.input) if g.constant(i) is not None)
        n.input[k] = g.add_constant(np.broadcast_to(g.constant(n.input[k]), g.shape(n.output[0])), n.input[k] + "__full")
        changed = True
    return changed


@rewrite
def ranks_raised(g, rng):
    """Products with one more axis of one."""
    sites = some(rng, (n for n in g.of("MatMul") if g.computed(n.output[0]) and all(len(g.shape(i) or ()) >= 2 for i in n.input) and len(g.shape(n.input[0])) >= len(g.shape(n.input[1]))), 3)
    for n in sites:
        stem, front = n.output[0] + "__rank", _ints(g, 0, n.output[0] + "__front")
        inner = g.insert(n, "MatMul", [g.insert(n, "Unsqueeze", [n.input[0], front], stem).output[0], n.input[1]], stem)
        _become(n, "Squeeze", [inner.output[0], front])
    return bool(sites)


@rewrite
def weights_from_one_block(g, rng):
    """All weights of products cut out of one long row of numbers."""
    sites = [(n, i) for n in g.of("MatMul", "Gemm", "Conv") for i in n.input[1:2] if (w := g.constant(i)) is not None and w.dtype == np.float32 and w.ndim >= 2]
    if not sites:
        return False
    block = g.add_constant(np.concatenate([g.constant(i).reshape(-1) for _, i in sites]), "block")
    start = 0
    for n, i in sites:
        stem, w = n.output[0] + "__cut", g.constant(i)
        cut = g.insert(n, "Slice", [block, _ints(g, start, stem), _ints(g, start + w.size, stem), _ints(g, 0, stem)], stem)
        n.input[1] = g.insert(n, "Reshape", [cut.output[0], _ints(g, w.shape, stem)], stem).output[0]
        start += w.size
    return True


@rewrite
def joined_by_writing(g, rng):
    """Pieces written into a tensor of noughts one after the other."""
    sites = some(rng, (n for n in g.of("Concat") if g.computed(n.output[0]) and len(n.input) > 1 and all(g.is_float(i) for i in n.input)), 2)
    for n in sites:
        shape, stem = g.shape(n.output[0]), n.output[0] + "__write"
        axis, start = attribute(n, "axis", 0) % len(shape), 0
        whole = g.add_constant(np.zeros(shape, np.float32), stem)
        for k, name in enumerate(n.input):
            piece = g.shape(name)
            places = np.broadcast_to(np.arange(start, start + piece[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))]), piece).astype(np.int64)
            node = g.insert(n, "ScatterElements", [whole, g.add_constant(places, stem), name], stem, axis=axis)
            whole, start = node.output[0], start + piece[axis]
        _become(n, "Identity", [whole])
    return bool(sites)


@rewrite
def gain_as_diagonal(g, rng):
    """A gain as a product with a matrix that has it on its diagonal."""
    changed = False
    for n in some(rng, (n for n in g.of("Mul") if g.computed(n.output[0]) and g.shape(n.output[0])[-1] > 4 and any((w := g.constant(i)) is not None and w.shape == g.shape(n.output[0])[-1:] for i in n.input)), 3):
        k = next(k for k, i in enumerate(n.input) if g.constant(i) is not None)
        _become(n, "MatMul", [n.input[1 - k], g.add_constant(np.diag(g.constant(n.input[k])), n.output[0] + "__diagonal")])
        changed = True
    return changed


@rewrite
def masks_apart(g, rng):
    """A mask added to the scores in two steps: for some keys first, for the others after."""
    changed = False
    for s in some(rng, g.of("Softmax"), 3):
        n = g.producer(s.input[0])
        if n is None or n.op_type != "Add":
            continue
        k = next((k for k, i in enumerate(n.input) if (v := g.value(i)) is not None and v.size > 1 and v.min() < -1e4 and v.shape[-1] > 4), None)
        if k is None:
            continue
        stem, size = n.output[0] + "__apart", g.shape(n.input[k])[-1]
        first = (np.arange(size) % 2).astype(np.float32)
        one, two = (g.insert(n, "Mul", [n.input[k], g.add_constant(part, stem)], stem).output[0] for part in (first, 1 - first))
        _become(n, "Add", [g.insert(n, "Add", [n.input[1 - k], one], stem).output[0], two])
        changed = True
    return changed
