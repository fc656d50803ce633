"""Residual connections and the order of operands."""
import numpy as np

from .registry import fault, pick, planted


def _residuals(g):
    """(sum, index of the skip): sums one side of which the other was computed from."""
    sites = []
    for n in g.of("Add"):
        a, b = n.input
        if g.computed(a) and g.computed(b) and g.shape(a) == g.shape(b) and a != b:
            for i, (skip, branch) in enumerate(((a, b), (b, a))):
                if skip in g.ancestors(branch, 80):
                    sites.append((n, i))
    return sites


@fault("residual")
def dropped_residual(g, rng):
    found = pick(rng, _residuals(g))
    if found is None:
        return None
    node, i = found
    node.input[i] = g.add_constant(np.zeros(1, np.float32), node.output[0] + "__zero")
    return planted(node)


def _normed(g, name):
    """The value behind a norm that reads `name`, or in front of a norm that makes it; None where there is none."""
    for n in g.consumers(name):
        if n.op_type == "LayerNormalization" and n.input[0] == name:
            return n.output[0]
        if n.op_type == "Mul":
            for m in g.consumers(n.output[0]):
                if m.op_type == "Mul" and any(g.constant(i) is not None and g.constant(i).ndim == 1 for i in m.input) and any(p is not None and p.op_type in ("Reciprocal", "Div", "Sqrt") for p in map(g.producer, n.input)):
                    return m.output[0]
    made = g.producer(name)
    return made.input[0] if made is not None and made.op_type == "LayerNormalization" else None


@fault("residual")
def residual_source(g, rng):
    """The skip taken behind the norm instead of in front of it, or the other way round."""
    order = {o: k for k, n in enumerate(g.nodes) for o in n.output}
    sites = [(n, i, other) for n, i in _residuals(g) if (other := _normed(g, n.input[i])) and g.shape(other) == g.shape(n.input[i]) and other != n.input[1 - i] and order.get(other, 1e9) < order[n.output[0]]]
    found = pick(rng, sites)
    if found is None:
        return None
    node, i, other = found
    node.input[i] = other
    return planted(node)


@fault("residual")
def residual_layer(g, rng):
    """The skip reads the sum of an earlier layer."""
    order = {o: k for k, n in enumerate(g.nodes) for o in n.output}
    residuals = _residuals(g)
    sites = [(n, i, m.output[0]) for n, i in residuals for m, _ in residuals
             if order[m.output[0]] < order[n.output[0]] and m.output[0] not in n.input and g.shape(m.output[0]) == g.shape(n.output[0])]
    found = pick(rng, sites)
    if found is None:
        return None
    node, i, other = found
    node.input[i] = other
    return planted(node)


@fault("operand_order")
def operand_order(g, rng):
    """Left and right exchanged: differences, quotients, products of square matrices, concatenations."""
    negated = {o for n in g.of("Neg") for o in n.output}
    sites = []
    for n in g.of("Sub", "Div", "MatMul", "Concat"):
        if not g.computed(n.output[0]) or len(n.input) < 2 or n.input[0] == n.input[1]:
            continue
        a, b = g.shape(n.input[0]), g.shape(n.input[1])
        if n.op_type == "MatMul" and not (a and b and len(a) > 1 and len(b) > 1 and a[-2:] == b[-2:] and a[-1] == a[-2]):
            continue
        if n.op_type == "Concat" and (set(n.input) & negated or not (g.computed(n.input[0]) and g.computed(n.input[1]))):
            continue
        if n.op_type in ("Sub", "Div") and np.broadcast_shapes(a, b) != g.shape(n.output[0]):
            continue
        sites.append(n)
    node = pick(rng, sites)
    if node is None:
        return None
    node.input[0], node.input[1] = node.input[1], node.input[0]
    return planted(node)
