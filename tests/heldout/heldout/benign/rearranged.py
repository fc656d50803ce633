"""The same sums with weights, places or work divided otherwise, and operators that do nothing. Second set."""
import numpy as np
import onnx
from onnx import helper

from ..graph import attribute, set_attribute
from .lowered import _become, _ints
from .registry import rewrite, some


def _stored(g, n):
    """The matrix of a product of a computed value, or None."""
    w = g.constant(n.input[1])
    return w if w is not None and w.ndim == 2 and w.dtype == np.float32 and g.computed(n.output[0]) and g.computed(n.input[0]) else None


def _both_computed(g, rank=0):
    return [n for n in g.of("MatMul") if all(g.computed(i) for i in n.input) and all(len(g.shape(i)) >= max(rank, 2) for i in n.input) and g.shape(n.input[0])[:-2] == g.shape(n.input[1])[:-2]]


@rewrite
def product_transposed(g, rng):
    """a b as the transpose of (b' a')."""
    sites = some(rng, _both_computed(g), 2)
    for n in sites:
        rank = len(g.shape(n.input[0]))
        perm = [*range(rank - 2), rank - 1, rank - 2]
        a, b = (g.insert(n, "Transpose", [i], n.output[0] + "__turned", perm=perm).output[0] for i in n.input)
        made = g.insert(n, "MatMul", [b, a], n.output[0] + "__turned")
        _become(n, "Transpose", [made.output[0]], perm=perm)
    return bool(sites)


@rewrite
def batches_merged(g, rng):
    """Products of matrices in a batch of heads with both batch axes made one."""
    sites = some(rng, _both_computed(g, 4), 3)
    for n in sites:
        stem, shape = n.output[0] + "__merged", g.shape(n.output[0])
        flat = [g.insert(n, "Reshape", [i, _ints(g, [-1, *g.shape(i)[-2:]], stem)], stem).output[0] for i in n.input]
        made = g.insert(n, "MatMul", flat, stem)
        _become(n, "Reshape", [made.output[0], _ints(g, shape, stem)])
    return bool(sites)


@rewrite
def heads_apart(g, rng):
    """One product for each head, and the results joined."""
    sites = some(rng, (n for n in _both_computed(g, 4) if 1 < g.shape(n.input[0])[1] <= 6), 2)
    for n in sites:
        stem, count = n.output[0] + "__head", g.shape(n.input[0])[1]
        a, b = (g.insert(n, "Split", [i, _ints(g, [1] * count, stem)], stem, outputs=count, axis=1).output for i in n.input)
        _become(n, "Concat", [g.insert(n, "MatMul", [x, y], stem).output[0] for x, y in zip(a, b)], axis=1)
    return bool(sites)


@rewrite
def rows_in_blocks(g, rng):
    """A product in two blocks of rows."""
    sites = some(rng, (n for n in g.of("MatMul") if g.computed(n.output[0]) and g.computed(n.input[0]) and len(g.shape(n.input[0])) >= 2 and g.shape(n.input[0])[-2] > 2), 3)
    for n in sites:
        stem, rank, rows = n.output[0] + "__block", len(g.shape(n.input[0])), g.shape(n.input[0])[-2]
        parts = g.insert(n, "Split", [n.input[0], _ints(g, [rows // 2, rows - rows // 2], stem)], stem, outputs=2, axis=rank - 2).output
        _become(n, "Concat", [g.insert(n, "MatMul", [p, n.input[1]], stem).output[0] for p in parts], axis=-2)
    return bool(sites)


@rewrite
def scale_in_weights(g, rng):
    """One number behind a product multiplied into its matrix, and into the bias between."""
    changed = False
    for n in g.of("Mul", "Div"):
        k = next((k for k in (0, 1) if g.scalar(n.input[k]) is not None), None)
        if k is None or n.op_type == "Div" and k == 0:
            continue
        factor = np.float32(g.scalar(n.input[k]) if n.op_type == "Mul" else 1 / g.scalar(n.input[k]))
        carried, at = [], g.producer(n.input[1 - k])
        while at is not None and len(g.consumers(at.output[0])) == 1 and not g.is_output(at.output[0]):
            if at.op_type in ("Reshape", "Transpose"):
                at = g.producer(at.input[0])
            elif at.op_type == "Add" and any(g.constant(i) is not None for i in at.input):
                i = next(i for i in (0, 1) if g.constant(at.input[i]) is not None)
                carried.append((at, i))
                at = g.producer(at.input[1 - i])
            elif at.op_type == "MatMul" and _stored(g, at) is not None:
                for m, i in [*carried, (at, 1)]:
                    m.input[i] = g.add_constant((g.constant(m.input[i]) * factor).astype(np.float32), m.input[i] + "__scaled")
                _become(n, "Identity", [n.input[1 - k]])
                changed = True
                break
            else:
                break
    return changed


@rewrite
def table_scaled(g, rng):
    """The factor on embeddings multiplied into their table."""
    changed = False
    for n in g.of("Mul"):
        k = next((k for k in (0, 1) if g.scalar(n.input[k]) is not None), None)
        look = g.producer(n.input[1 - k]) if k is not None else None
        if look is None or look.op_type != "Gather" or (t := g.constant(look.input[0])) is None or t.dtype != np.float32 or len(g.consumers(look.output[0])) != 1:
            continue
        look.input[0] = g.add_constant(t * np.float32(g.scalar(n.input[k])), look.input[0] + "__scaled")
        _become(n, "Identity", [look.output[0]])
        changed = True
    return changed


@rewrite
def norm_folded(g, rng):
    """A batch norm multiplied into the kernel in front of it."""
    changed = False
    for n in g.of("BatchNormalization"):
        conv = g.producer(n.input[0])
        if conv is None or conv.op_type != "Conv" or g.constant(conv.input[1]) is None or len(g.consumers(conv.output[0])) != 1:
            continue
        gain, shift, mean, var = (g.constant(i).astype(np.float64) for i in n.input[1:5])
        factor, w = gain / np.sqrt(var + attribute(n, "epsilon", 1e-5)), g.constant(conv.input[1])
        b = g.constant(conv.input[2]) if len(conv.input) > 2 else 0
        conv.input[1] = g.add_constant((w * factor.reshape(-1, *[1] * (w.ndim - 1))).astype(np.float32), conv.input[1] + "__folded")
        del conv.input[2:]
        conv.input.append(g.add_constant(((b - mean) * factor + shift).astype(np.float32), conv.input[1] + "__bias"))
        _become(n, "Identity", [conv.output[0]])
        changed = True
    return changed


@rewrite
def channels_equalised(g, rng):
    """Units in front of a ReLU made larger and the weights behind it smaller by the same factors."""
    for first in some(rng, g.of("MatMul", "Gemm"), 50):
        w, at, moved = g.constant(first.input[1]), first, []
        if w is None or w.ndim != 2 or any(a.name.startswith("trans") and a.i for a in first.attribute):
            continue
        factors = rng.uniform(0.5, 2, w.shape[1]).astype(np.float32)
        if len(first.input) > 2:
            moved.append((first, 2, g.constant(first.input[2]) * factors))
        seen = False
        while len(readers := g.consumers(at.output[0])) == 1 and not g.is_output(at.output[0]):
            at = readers[0]
            if at.op_type == "Add" and not seen and any(g.shape(i) == (w.shape[1],) and g.constant(i) is not None for i in at.input):
                i = next(i for i in (0, 1) if g.shape(at.input[i]) == (w.shape[1],))
                moved.append((at, i, g.constant(at.input[i]) * factors))
            elif at.op_type in ("Relu", "LeakyRelu"):
                seen = True
            elif at.op_type in ("MatMul", "Gemm") and seen and (v := g.constant(at.input[1])) is not None and v.shape[0] == w.shape[1] and not any(a.name.startswith("trans") and a.i for a in at.attribute):
                for n, i, c in [*moved, (first, 1, w * factors), (at, 1, v / factors[:, None])]:
                    n.input[i] = g.add_constant(c.astype(np.float32), n.input[i] + "__equal")
                return True
            else:
                break
    return False


@rewrite
def sign_moved(g, rng):
    """Minus the weight, and minus the result."""
    sites = some(rng, (n for n in g.of("MatMul") if _stored(g, n) is not None), 3)
    for n in sites:
        made = g.insert(n, "MatMul", [n.input[0], g.add_constant(-g.constant(n.input[1]), n.input[1] + "__minus")], n.output[0] + "__minus")
        _become(n, "Neg", [made.output[0]])
    return bool(sites)


@rewrite
def joined_product_apart(g, rng):
    """A product of what was joined as a sum of products of the parts."""
    changed = False
    for n in g.of("MatMul", "Gemm"):
        cat = g.producer(n.input[0])
        w = g.constant(n.input[1])
        if cat is None or cat.op_type != "Concat" or w is None or w.ndim != 2 or attribute(cat, "axis") % len(g.shape(cat.output[0])) != len(g.shape(cat.output[0])) - 1 or attribute(n, "alpha", 1.0) != 1.0 \
                or attribute(n, "beta", 1.0) != 1.0 or attribute(n, "transA", 0):
            continue
        w = w.T if attribute(n, "transB", 0) else w
        total, start, stem = n.input[2] if len(n.input) > 2 else None, 0, n.output[0] + "__apart"
        for part in cat.input:
            size = g.shape(part)[-1]
            made = g.insert(n, "MatMul", [part, g.add_constant(np.ascontiguousarray(w[start:start + size]), stem + "_w")], stem).output[0]
            total = made if total is None else g.insert(n, "Add", [made, total], stem).output[0]
            start += size
        _become(n, "Identity", [total])
        changed = True
    return changed


@rewrite
def bias_as_row(g, rng):
    """The bias as one more row of the matrix, for a feature that is always one."""
    changed = False
    for n in some(rng, g.of("MatMul"), 20):
        add = g.consumers(n.output[0])[0] if len(g.consumers(n.output[0])) == 1 else None
        if add is None or add.op_type != "Add" or _stored(g, n) is None or g.is_output(n.output[0]):
            continue
        i = 1 - list(add.input).index(n.output[0])
        b = g.constant(add.input[i])
        if b is None or b.shape != (g.constant(n.input[1]).shape[1],):
            continue
        stem = n.output[0] + "__row"
        ones = g.add_constant(np.ones((*g.shape(n.input[0])[:-1], 1), np.float32), stem)
        wide = g.insert(n, "Concat", [n.input[0], ones], stem, axis=-1)
        n.input[0] = wide.output[0]
        n.input[1] = g.add_constant(np.concatenate([g.constant(n.input[1]), b[None]]), stem + "_w")
        _become(add, "Identity", [n.output[0]])
        changed = True
    return changed


@rewrite
def bias_on_skip(g, rng):
    """(product + bias) + skip as product + (skip + bias)."""
    changed = False
    for outer in g.of("Add"):
        for k in (0, 1):
            inner, skip = g.producer(outer.input[k]), outer.input[1 - k]
            if inner is None or inner.op_type != "Add" or len(g.consumers(inner.output[0])) != 1 or not g.computed(skip) or g.is_output(inner.output[0]):
                continue
            i = next((i for i in (0, 1) if g.constant(inner.input[i]) is not None and g.constant(inner.input[i]).ndim == 1), None)
            if i is None:
                continue
            more = g.insert(outer, "Add", [skip, inner.input[i]], outer.output[0] + "__skip")
            _become(outer, "Add", [inner.input[1 - i], more.output[0]])
            g.remove(inner)
            changed = True
            break
    return changed


@rewrite
def quotient_by_reciprocal(g, rng):
    sites = [n for n in g.of("Div") if g.computed(n.output[0]) and g.constant(n.input[1]) is None and g.is_float(n.input[1])]
    for n in sites:
        n.input[1] = g.insert(n, "Reciprocal", [n.input[1]], n.output[0] + "__inverse").output[0]
        n.op_type = "Mul"
    return bool(sites)


@rewrite
def choice_by_arithmetic(g, rng):
    """A choice between moderate numbers as c a + (1 - c) b."""
    changed = False
    for n in g.of("Where"):
        if not g.computed(n.output[0]) or any(g.value(i) is None or not np.abs(g.value(i)).max(initial=0) < 100 for i in n.input[1:]):
            continue
        stem = n.output[0] + "__mixed"
        c = g.insert(n, "Cast", [n.input[0]], stem, to=1).output[0]
        rest = g.insert(n, "Sub", [g.add_constant(np.float32(1), stem + "_one"), c], stem).output[0]
        a = g.insert(n, "Mul", [n.input[1], c], stem).output[0]
        b = g.insert(n, "Mul", [n.input[2], rest], stem).output[0]
        _become(n, "Add", [a, b])
        changed = True
    return changed


@rewrite
def joined_as_borders(g, rng):
    """Two tensors joined: each with a border of noughts, and added."""
    sites = some(rng, (n for n in g.of("Concat") if len(n.input) == 2 and g.computed(n.output[0]) and all(g.is_float(i) and np.isfinite(g.value(i)).all() for i in n.input)), 2)
    for n in sites:
        axis, stem, rank = attribute(n, "axis"), n.output[0] + "__border", len(g.shape(n.output[0]))
        axis %= rank
        sizes = [g.shape(i)[axis] for i in n.input]
        made = []
        for k, name in enumerate(n.input):
            pads = [0] * (2 * rank)
            pads[axis + (rank if k == 0 else 0)] = sizes[1 - k]
            made.append(g.insert(n, "Pad", [name, _ints(g, pads, stem)], stem).output[0])
        _become(n, "Add", made)
    return bool(sites)


@rewrite
def copies_as_product(g, rng):
    """Copies along an axis as a product with ones."""
    changed = False
    for n in g.of("Expand"):
        if g.computed(n.output[0]) and np.isfinite(g.value(n.input[0])).all():
            _become(n, "Mul", [n.input[0], g.add_constant(np.ones(g.shape(n.output[0]), np.float32), n.output[0] + "__ones")])
            changed = True
    return changed


@rewrite
def idle_operators(g, rng):
    """Operators that change nothing: dropout that is off, one input joined, a slice of all, a wide clip, to double and back."""
    changed = False
    for n in some(rng, (n for n in g.nodes if len(n.output) == 1 and g.computed(n.output[0]) and np.isfinite(g.values[n.output[0]]).all()), 8):
        out = g.rename_output(n, 0, g.fresh(n.output[0] + "__busy"))
        x, stem, kind = n.output[0], out + "__idle", int(rng.integers(6))
        if kind == 0:
            g.insert_after(n, "Dropout", [x, g.add_constant(np.float32(0.5), stem)], stem, output=out)
        elif kind == 1:
            g.insert_after(n, "Concat", [x], stem, output=out, axis=0)
        elif kind == 2:
            g.insert_after(n, "Slice", [x, _ints(g, 0, stem), _ints(g, 2 ** 31, stem), _ints(g, 0, stem)], stem, output=out)
        elif kind == 3:
            g.insert_after(n, "Clip", [x, g.add_constant(np.float32(-3e38), stem), g.add_constant(np.float32(3e38), stem)], stem, output=out)
        elif kind == 4:
            wide = g.insert_after(n, "Cast", [x], stem + "_wide", to=11)
            g.insert_after(wide, "Cast", [wide.output[0]], stem, output=out, to=1)
        else:
            g.insert_after(n, "Sum", [x], stem, output=out)
        changed = True
    return changed


@rewrite
def shapes_computed(g, rng):
    """Shapes that were numbers worked out while running, from the input of the reshape or another value."""
    changed = False
    for n in some(rng, (n for n in g.of("Reshape") if g.computed(n.output[0]) and g.constant(n.input[1]) is not None and g.shape(n.output[0])), 4):
        shape, source, stem = g.shape(n.output[0]), g.shape(n.input[0]), n.output[0] + "__shape"
        whole = g.insert(n, "Shape", [n.input[0]], stem).output[0]
        parts = []
        for d in shape:
            if d in source:
                parts.append(g.insert(n, "Gather", [whole, _ints(g, source.index(d), stem)], stem, axis=0).output[0])
            else:
                parts.append(_ints(g, d, stem))
        n.input[1] = g.insert(n, "Concat", parts, stem, axis=0).output[0]
        changed = True
    return changed


@rewrite
def unread_nodes(g, rng):
    """Work that nobody reads, a little like work that somebody does."""
    for n in some(rng, (n for n in g.nodes if n.op_type in ("MatMul", "Conv", "Gemm", "Add", "LayerNormalization", "Softmax") and g.computed(n.output[0]) and len(n.output) == 1), 3):
        again = onnx.NodeProto.FromString(n.SerializeToString())
        again.name, again.output[0] = g.fresh(n.name + "__unread"), g.fresh(n.output[0] + "__unread")
        g.nodes.insert(g.position(n) + 1, again)
        g.insert_after(g.nodes[g.position(n) + 1], "Sqrt", [again.output[0]], again.output[0] + "__root")
    return True


@rewrite
def one_turn_loop(g, rng):
    """Operators inside a loop that turns once."""
    changed = False
    for n in some(rng, (n for n in g.nodes if len(n.output) == 1 and g.computed(n.output[0]) and g.computed(n.input[0]) and n.op_type in ("Add", "Mul", "MatMul", "Conv", "Relu", "Tanh", "LayerNormalization")), 2):
        out, stem = n.output[0], n.output[0] + "__loop"
        inside = onnx.NodeProto.FromString(n.SerializeToString())
        inside.output[0] = g.fresh(stem + "_result")
        step, go, on, past = (g.fresh(stem + f"_{w}") for w in ("step", "go", "on", "past"))
        rank = len(g.shape(out))
        info = lambda name, kind, shape: helper.make_tensor_value_info(name, kind, shape)
        body = helper.make_graph([helper.make_node("Identity", [go], [on], g.fresh(stem + "_keep")), inside], n.name + "_body",
                                 [info(step, onnx.TensorProto.INT64, []), info(go, onnx.TensorProto.BOOL, []), info(past, onnx.TensorProto.FLOAT, [None] * rank)],
                                 [info(on, onnx.TensorProto.BOOL, []), info(inside.output[0], onnx.TensorProto.FLOAT, [None] * rank)])
        turns, true = g.add_constant(np.int64(1), stem + "_turns"), g.add_constant(np.array(True), stem + "_true")
        start = g.add_constant(np.zeros(g.shape(out), np.float32), stem + "_start")
        _become(n, "Loop", [turns, true, start])
        n.attribute.append(helper.make_attribute("body", body))
        changed = True
    return changed


@rewrite
def constants_narrow(g, rng):
    """Constants that half precision holds exactly stored in it, and widened where they are read."""
    changed = False
    names = {i for n in g.nodes for i in n.input if (c := g.constant(i)) is not None and c.dtype == np.float32 and c.size}
    for name in sorted(names):
        c = g.constant(name)
        with np.errstate(over="ignore"):
            half = c.astype(np.float16)
        readers = g.consumers(name)
        if not np.array_equal(half.astype(np.float32), c) or any(r.op_type in ("Constant", "Clip", "Resize", "Pad", "BatchNormalization", "LSTM", "GRU") for r in readers) or not readers:
            continue
        first = min(readers, key=g.position)
        wide = g.insert(first, "Cast", [g.add_constant(half, name + "__half")], name + "__wide", to=1)
        g.redirect(name, wide.output[0], keep={wide.name})
        changed = True
    return changed


@rewrite
def bias_joins_constant(g, rng):
    """x + b as (x + b / 2) + b / 2."""
    sites = some(rng, (n for n in g.of("Add") if g.computed(n.output[0]) and any((c := g.constant(i)) is not None and c.dtype == np.float32 and np.abs(c).max(initial=0) < 1e4 for i in n.input)), 3)
    for n in sites:
        i = next(i for i in (0, 1) if g.constant(n.input[i]) is not None)
        half = g.add_constant(g.constant(n.input[i]) / 2, n.input[i] + "__half")
        n.input[1 - i] = g.insert(n, "Add", [n.input[1 - i], half], n.output[0] + "__first").output[0]
        n.input[i] = half
    return bool(sites)


@rewrite
def batch_apart(g, rng):
    """The samples of a batch through one operator one by one."""
    sites = [n for n in g.of("Conv", "LayerNormalization", "Softmax", "ConvTranspose") if g.computed(n.output[0]) and g.computed(n.input[0]) and len(n.output) == 1 and len(g.shape(n.input[0])) > 2
             and 1 < g.shape(n.input[0])[0] <= 4 and g.shape(n.output[0])[0] == g.shape(n.input[0])[0] and attribute(n, "axis", -1) != 0]
    sites = some(rng, sites, 2)
    for n in sites:
        count, stem = g.shape(n.input[0])[0], n.output[0] + "__sample"
        kept = {a.name: helper.get_attribute_value(a) for a in n.attribute}
        parts = g.insert(n, "Split", [n.input[0], _ints(g, [1] * count, stem)], stem, outputs=count, axis=0).output
        made = [g.insert(n, n.op_type, [p, *list(n.input)[1:]], stem, **kept).output[0] for p in parts]
        _become(n, "Concat", made, axis=0)
    return bool(sites)


@rewrite
def queries_turned(g, rng):
    """Both factors of a product of queries and keys turned by the same random rotation, which it does not see."""
    for n in some(rng, _both_computed(g, 3), 20):
        size = g.shape(n.input[0])[-1]
        if not 2 < size <= 32:
            continue
        q = np.linalg.qr(rng.standard_normal((size, size)))[0].astype(np.float32)
        stem = n.output[0] + "__turn"
        n.input[0] = g.insert(n, "MatMul", [n.input[0], g.add_constant(q, stem)], stem).output[0]
        n.input[1] = g.insert(n, "MatMul", [g.add_constant(np.ascontiguousarray(q.T), stem), n.input[1]], stem).output[0]
        return True
    return False
