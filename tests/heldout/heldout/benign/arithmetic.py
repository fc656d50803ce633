"""The same arithmetic in another form or order."""
import numpy as np

from .registry import rewrite, some


@rewrite
def commute(g, rng):
    sites = [n for n in g.of("Add", "Mul") if g.computed(n.output[0])]
    for n in sites:
        n.input[0], n.input[1] = n.input[1], n.input[0]
    return bool(sites)


@rewrite
def sum_order(g, rng):
    """(a + b) + c as a + (b + c)."""
    changed = False
    for outer in some(rng, (n for n in g.of("Add") if g.computed(n.output[0]))):
        for i in (0, 1):
            inner = g.producer(outer.input[i])
            if inner is not None and inner.op_type == "Add" and len(g.consumers(inner.output[0])) == 1 and not g.is_output(inner.output[0]):
                a, b = inner.input
                second = g.insert(outer, "Add", [b, outer.input[1 - i]], outer.output[0] + "__regrouped")
                outer.input[i], outer.input[1 - i] = a, second.output[0]
                g.remove(inner)
                changed = True
                break
    return changed


def _inverse(g, n, i):
    c = g.constant(n.input[i])
    if c is None or c.dtype != np.float32 or np.any(c == 0) or np.abs(c).max() > 1e4 or not g.computed(n.output[0]):
        return None
    return (1 / c.astype(np.float64)).astype(np.float32)


@rewrite
def quotient_as_product(g, rng):
    changed = False
    for n in g.of("Div"):
        inverse = _inverse(g, n, 1)
        if inverse is not None:
            n.op_type = "Mul"
            n.input[1] = g.add_constant(inverse, n.input[1] + "__inverse")
            changed = True
    return changed


@rewrite
def product_as_quotient(g, rng):
    changed = False
    for n in some(rng, g.of("Mul")):
        inverse = _inverse(g, n, 1) if g.constant(n.input[1]) is not None else None
        if inverse is not None and inverse.size == 1:
            n.op_type = "Div"
            n.input[1] = g.add_constant(inverse, n.input[1] + "__inverse")
            changed = True
    return changed


@rewrite
def root_forms(g, rng):
    """1 / sqrt(x), the reciprocal of the root, and x to the power of minus one half."""
    changed = False
    for root in g.of("Sqrt"):
        for n in g.consumers(root.output[0]):
            numerator = g.scalar(n.input[0]) if n.op_type == "Div" else None
            if n.op_type == "Reciprocal" and rng.integers(2):
                n.op_type = "Div"
                one = g.add_constant(np.float32(1), n.output[0] + "__one")
                n.input.insert(0, one)
                changed = True
            elif n.op_type == "Reciprocal" or n.op_type == "Div" and numerator == 1.0 and n.input[1] == root.output[0]:
                n.op_type = "Pow"
                del n.input[:]
                n.input.extend([root.input[0], g.add_constant(np.float32(-0.5), n.output[0] + "__exponent")])
                changed = True
    return changed


@rewrite
def powers_as_products(g, rng):
    changed = False
    for n in g.of("Pow"):
        exponent = g.scalar(n.input[1])
        if exponent in (2.0, 3.0):
            x = n.input[0]
            if exponent == 3.0:
                square = g.insert(n, "Mul", [x, x], n.output[0] + "__square")
                n.input[0] = square.output[0]
            n.op_type = "Mul"
            n.input[1] = x
            changed = True
    return changed


@rewrite
def difference_as_sum(g, rng):
    sites = [n for n in g.of("Sub") if g.computed(n.output[0])]
    for n in sites:
        less = g.insert(n, "Neg", [n.input[1]], n.output[0] + "__negative")
        n.op_type = "Add"
        n.input[1] = less.output[0]
    return bool(sites)


@rewrite
def scale_on_queries(g, rng):
    """The factor of the scores applied to the queries before the product."""
    changed = False
    for n in g.of("Mul", "Div"):
        i = next((i for i in (0, 1) if g.scalar(n.input[i]) is not None), None)
        product = g.producer(n.input[1 - i]) if i is not None and (n.op_type == "Mul" or i == 1) else None
        if product is None or product.op_type != "MatMul" or len(g.consumers(product.output[0])) != 1 or g.constant(product.input[1]) is not None:
            continue
        scaled = g.insert(product, n.op_type, [product.input[0], n.input[i]], product.output[0] + "__scaled")
        product.input[0] = scaled.output[0]
        g.redirect(n.output[0], product.output[0])
        g.remove(n)
        changed = True
    return changed


@rewrite
def gain_in_weights(g, rng):
    """The gain of a norm multiplied into the matrices that follow."""
    changed = False
    for n in g.of("Mul"):
        i = next((i for i in (0, 1) if g.constant(n.input[i]) is not None and g.constant(n.input[i]).ndim == 1 and g.constant(n.input[i]).size > 4), None)
        readers = g.consumers(n.output[0])
        if i is None or not readers or g.is_output(n.output[0]) or not all(r.op_type == "MatMul" and r.input[0] == n.output[0] and g.constant(r.input[1]) is not None for r in readers):
            continue
        gain = g.constant(n.input[i])
        for r in readers:
            w = g.constant(r.input[1])
            if w.ndim != 2:
                return changed
            r.input[1] = g.add_constant((w * gain[:, None]).astype(np.float32), r.input[1] + "__gained")
            r.input[0] = n.input[1 - i]
        g.remove(n)
        changed = True
    return changed


@rewrite
def split_k(g, rng):
    """A matrix product as the sum of two, over the halves of the inner axis."""
    changed = False
    for n in some(rng, (n for n in g.of("MatMul") if g.computed(n.output[0]) and g.constant(n.input[1]) is not None and g.constant(n.input[1]).ndim == 2 and g.computed(n.input[0])), 3):
        w, out, half = g.constant(n.input[1]), n.output[0], g.constant(n.input[1]).shape[0] // 2
        bounds = [g.add_constant(np.array([v], np.int64), out + "__bound") for v in (0, half, w.shape[0], len(g.shape(n.input[0])) - 1)]
        parts = []
        for k, piece in enumerate((w[:half], w[half:])):
            x = g.insert(n, "Slice", [n.input[0], bounds[k], bounds[k + 1], bounds[3]], out + "__slice")
            parts.append(g.insert(n, "MatMul", [x.output[0], g.add_constant(np.ascontiguousarray(piece), n.input[1] + "__part")], out + "__part"))
        n.op_type = "Add"
        n.input[0], n.input[1] = (p.output[0] for p in parts)
        changed = True
    return changed


@rewrite
def wider_sum(g, rng):
    """One sum taken in double precision and rounded back."""
    changed = False
    for n in some(rng, (n for n in g.of("Add") if g.computed(n.output[0])), 2):
        for i in (0, 1):
            n.input[i] = g.insert(n, "Cast", [n.input[i]], n.output[0] + "__wide", to=11).output[0]
        out = g.rename_output(n, 0, g.fresh(n.output[0] + "__double"))
        g.insert_after(n, "Cast", [n.output[0]], out + "__back", output=out, to=1)
        changed = True
    return changed


@rewrite
def mask_by_choice(g, rng):
    """scores + mask, where the mask hides by a huge negative number, as a choice."""
    changed = False
    for n in g.of("Add"):
        for i in (0, 1):
            m = g.value(n.input[i])
            if m is not None and m.dtype == np.float32 and m.size > 1 and m.min() < -1e30 and set(np.unique(m)) == {m.min(), np.float32(0)}:
                low = g.add_constant(np.float32(m.min()), n.output[0] + "__low")
                zero = g.add_constant(np.float32(-1), n.output[0] + "__edge")
                hidden = g.insert(n, "Less", [n.input[i], zero], n.output[0] + "__hidden")
                scores = n.input[1 - i]
                n.op_type = "Where"
                del n.input[:]
                n.input.extend([hidden.output[0], low, scores])
                changed = True
                break
    return changed
