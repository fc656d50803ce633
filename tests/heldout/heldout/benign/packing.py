"""Projections joined, split, transposed; Gemm against MatMul and Add."""
import numpy as np
from onnx import helper

from ..graph import attribute, drop_attributes
from .registry import rewrite, some


def _projections(g):
    return [n for n in g.of("MatMul") if (w := g.constant(n.input[1])) is not None and w.ndim == 2 and g.computed(n.input[0])]


@rewrite
def projections_packed(g, rng):
    """Matrices that multiply the same value stacked into one, and the result split."""
    changed, groups = False, {}
    for n in _projections(g):
        groups.setdefault(n.input[0], []).append(n)
    for x, group in groups.items():
        if len(group) < 2:
            continue
        weights = [g.constant(n.input[1]) for n in group]
        packed = g.add_constant(np.concatenate(weights, 1), group[0].input[1] + "__packed")
        product = g.insert(group[0], "MatMul", [x, packed], group[0].output[0] + "__packed")
        sizes = g.add_constant(np.array([w.shape[1] for w in weights], np.int64), group[0].output[0] + "__sizes")
        split = g.insert(group[0], "Split", [product.output[0], sizes], group[0].output[0] + "__split", outputs=len(group), axis=len(g.shape(x)) - 1)
        for n, made in zip(group, list(split.output)):
            out = n.output[0]
            g.remove(n)
            split.output[list(split.output).index(made)] = out
        changed = True
    return changed


@rewrite
def columns_apart(g, rng):
    """A matrix cut into two, and the results joined."""
    changed = False
    for n in some(rng, _projections(g), 3):
        w, out = g.constant(n.input[1]), n.output[0]
        cut = w.shape[1] // 3
        if not cut:
            continue
        parts = [g.insert(n, "MatMul", [n.input[0], g.add_constant(np.ascontiguousarray(p), n.input[1] + "__columns")], out + "__columns").output[0] for p in (w[:, :cut], w[:, cut:])]
        n.op_type = "Concat"
        del n.input[:]
        n.input.extend(parts)
        n.attribute.append(helper.make_attribute("axis", len(g.shape(out)) - 1))
        changed = True
    return changed


@rewrite
def gemm_apart(g, rng):
    """Gemm as MatMul and Add."""
    changed = False
    for n in g.of("Gemm"):
        w = g.constant(n.input[1])
        if w is None or attribute(n, "transA", 0) or attribute(n, "alpha", 1.0) != 1.0 or attribute(n, "beta", 1.0) != 1.0 or len(n.input) < 3:
            continue
        weight = n.input[1] if not attribute(n, "transB", 0) else g.add_constant(np.ascontiguousarray(w.T), n.input[1] + "__t")
        product = g.insert(n, "MatMul", [n.input[0], weight], n.output[0] + "__product")
        n.op_type = "Add"
        drop_attributes(n)
        bias = n.input[2]
        del n.input[:]
        n.input.extend([product.output[0], bias])
        changed = True
    return changed


@rewrite
def product_as_gemm(g, rng):
    """MatMul and Add as Gemm over the flattened value, with the weight stored transposed."""
    changed = False
    for n in some(rng, _projections(g), 4):
        readers = g.consumers(n.output[0])
        if len(readers) != 1 or readers[0].op_type != "Add" or g.is_output(n.output[0]):
            continue
        add = readers[0]
        bias = next((i for i in add.input if g.constant(i) is not None and g.constant(i).ndim == 1), None)
        if bias is None:
            continue
        w, out, stem = g.constant(n.input[1]), add.output[0], add.output[0] + "__gemm"
        shape = g.shape(out)
        flat = g.insert(n, "Reshape", [n.input[0], g.add_constant(np.array([-1, w.shape[0]], np.int64), stem + "_flat")], stem)
        gemm = g.insert(n, "Gemm", [flat.output[0], g.add_constant(np.ascontiguousarray(w.T), n.input[1] + "__t"), bias], stem, transB=1)
        add.op_type = "Reshape"
        del add.input[:]
        add.input.extend([gemm.output[0], g.add_constant(np.array(shape, np.int64), stem + "_shape")])
        g.remove(n)
        changed = True
    return changed


@rewrite
def weight_transposed_in_graph(g, rng):
    """The weight stored the other way and transposed on the way."""
    changed = False
    for n in some(rng, _projections(g), 3):
        stored = g.add_constant(np.ascontiguousarray(g.constant(n.input[1]).T), n.input[1] + "__stored")
        n.input[1] = g.insert(n, "Transpose", [stored], n.output[0] + "__weight", perm=[1, 0]).output[0]
        changed = True
    return changed


@rewrite
def split_as_slices(g, rng):
    changed = False
    for n in g.of("Split"):
        axis, start = attribute(n, "axis", 0), 0
        for out in n.output:
            size = g.shape(out)[axis]
            bounds = [g.add_constant(np.array([v], np.int64), out + "__bound") for v in (start, start + size, axis)]
            g.insert(n, "Slice", [n.input[0], *bounds], out + "__slice", output=out)
            start += size
        g.remove(n)
        changed = True
    return changed
