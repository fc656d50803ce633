"""Composite operators written out, and activations in other words."""
import numpy as np

from ..graph import attribute, drop_attributes
from .registry import rewrite, some


def _scalar(g, node, v, word):
    return g.add_constant(np.float32(v), f"{node.output[0]}__{word}")


@rewrite
def layer_norm_expanded(g, rng):
    changed = False
    for n in some(rng, (n for n in g.of("LayerNormalization") if attribute(n, "axis", -1) == -1), 3):
        stem, x = n.output[0] + "__ln", n.input[0]
        mean = g.insert_reduce(n, "ReduceMean", x, [-1], stem)
        off = g.insert(n, "Sub", [x, mean.output[0]], stem)
        square = g.insert(n, "Pow", [off.output[0], _scalar(g, n, 2, "two")], stem)
        var = g.insert_reduce(n, "ReduceMean", square.output[0], [-1], stem)
        safe = g.insert(n, "Add", [var.output[0], _scalar(g, n, attribute(n, "epsilon", 1e-5), "eps")], stem)
        root = g.insert(n, "Sqrt", [safe.output[0]], stem)
        unit = g.insert(n, "Div", [off.output[0], root.output[0]], stem)
        scaled = g.insert(n, "Mul", [unit.output[0], n.input[1]], stem)
        shift = n.input[2] if len(n.input) > 2 else None
        n.op_type = "Add" if shift else "Identity"
        drop_attributes(n)
        del n.input[:], n.output[1:]
        n.input.extend([scaled.output[0], shift] if shift else [scaled.output[0]])
        changed = True
    return changed


@rewrite
def softmax_expanded(g, rng):
    changed = False
    for n in some(rng, (n for n in g.of("Softmax") if g.computed(n.output[0])), 2):
        stem, axis = n.output[0] + "__sm", attribute(n, "axis", -1)
        top = g.insert_reduce(n, "ReduceMax", n.input[0], [axis], stem)
        off = g.insert(n, "Sub", [n.input[0], top.output[0]], stem)
        power = g.insert(n, "Exp", [off.output[0]], stem)
        total = g.insert_reduce(n, "ReduceSum", power.output[0], [axis], stem)
        n.op_type = "Div"
        drop_attributes(n)
        del n.input[:]
        n.input.extend([power.output[0], total.output[0]])
        changed = True
    return changed


@rewrite
def batch_norm_affine(g, rng):
    """A batch norm as one product and one sum with folded constants."""
    changed = False
    for n in g.of("BatchNormalization"):
        stored = [g.constant(i) for i in n.input[1:5]]
        if any(s is None for s in stored):
            continue
        gain, shift, mean, var = (s.astype(np.float64) for s in stored)
        a = gain / np.sqrt(var + attribute(n, "epsilon", 1e-5))
        shape = (-1, *[1] * (len(g.shape(n.input[0])) - 2))
        c, d = (g.add_constant(v.astype(np.float32).reshape(shape), n.output[0] + "__affine") for v in (a, shift - mean * a))
        scaled = g.insert(n, "Mul", [n.input[0], c], n.output[0] + "__affine")
        n.op_type = "Add"
        drop_attributes(n)
        del n.input[:]
        n.input.extend([scaled.output[0], d])
        changed = True
    return changed


@rewrite
def activation_expanded(g, rng):
    """Activations in terms of simpler operators."""
    changed = False
    for n in g.of("Relu", "Sigmoid", "HardSwish", "LeakyRelu", "Clip"):
        if not g.computed(n.output[0]) or not rng.integers(2):
            continue
        x, stem = n.input[0], n.output[0] + "__ex"
        if n.op_type == "Relu":
            n.op_type = "Max"
            n.input.append(_scalar(g, n, 0, "zero"))
        elif n.op_type == "Sigmoid":
            minus = g.insert(n, "Neg", [x], stem)
            power = g.insert(n, "Exp", [minus.output[0]], stem)
            below = g.insert(n, "Add", [power.output[0], _scalar(g, n, 1, "one")], stem)
            n.op_type = "Reciprocal"
            n.input[0] = below.output[0]
        elif n.op_type == "HardSwish":
            gate = g.insert(n, "HardSigmoid", [x], stem, alpha=1 / 6, beta=0.5)
            n.op_type = "Mul"
            n.input.append(gate.output[0])
        elif n.op_type == "LeakyRelu":
            slope = g.insert(n, "Mul", [x, _scalar(g, n, attribute(n, "alpha", 0.01), "slope")], stem)
            n.op_type = "Max"
            n.input.append(slope.output[0])
            drop_attributes(n)
        else:
            if len(n.input) < 3 or not n.input[1] or not n.input[2]:
                continue
            low = g.insert(n, "Max", [x, n.input[1]], stem)
            n.op_type = "Min"
            high = n.input[2]
            del n.input[:]
            n.input.extend([low.output[0], high])
        changed = True
    return changed


@rewrite
def gelu_regrouped(g, rng):
    """x * (1 + erf) * 0.5 as x * ((1 + erf) * 0.5)."""
    changed = False
    for erf in g.of("Erf", "Tanh"):
        for plus in g.consumers(erf.output[0]):
            for product in g.consumers(plus.output[0]) if plus.op_type == "Add" else ():
                if product.op_type == "Mul" and (inner := g.producer(next(i for i in product.input if i != plus.output[0]))) is not None and inner.op_type == "Mul" \
                        and any(g.scalar(i) == 0.5 for i in inner.input) and len(g.consumers(inner.output[0])) == 1:
                    # (x * 0.5) * (1 + erf) as (x * (1 + erf)) * 0.5
                    k = next(k for k, i in enumerate(inner.input) if g.scalar(i) == 0.5)
                    j = list(product.input).index(inner.output[0])
                    inner.input[k], product.input[1 - j] = plus.output[0], inner.input[k]
                    changed = True
                    continue
                halves = [h for h in g.consumers(product.output[0]) if h.op_type == "Mul" and any(g.scalar(i) == 0.5 for i in h.input)] if product.op_type == "Mul" else []
                if len(halves) != 1 or len(g.consumers(product.output[0])) != 1:
                    continue
                half = halves[0]
                c = next(i for i in half.input if g.scalar(i) == 0.5)
                x = next(i for i in product.input if i != plus.output[0])
                product.input[0], product.input[1] = plus.output[0], c
                half.input[0], half.input[1] = x, product.output[0]
                changed = True
    return changed


@rewrite
def table_as_product(g, rng):
    """A table look-up as a product with one-hot rows."""
    changed = False
    for n in some(rng, (n for n in g.of("Gather") if (t := g.constant(n.input[0])) is not None and t.ndim == 2 and t.dtype == np.float32 and g.computed(n.output[0]) and attribute(n, "axis", 0) == 0), 1):
        depth = g.add_constant(np.array(g.shape(n.input[0])[0], np.int64), n.output[0] + "__depth")
        values = g.add_constant(np.array([0, 1], np.float32), n.output[0] + "__hot")
        hot = g.insert(n, "OneHot", [n.input[1], depth, values], n.output[0] + "__onehot")
        table = n.input[0]
        n.op_type = "MatMul"
        drop_attributes(n)
        n.input[0], n.input[1] = hot.output[0], table
        changed = True
    return changed


@rewrite
def pool_as_mean(g, rng):
    changed = False
    for n in g.of("GlobalAveragePool"):
        axes = list(range(2, len(g.shape(n.input[0]))))
        out = g.rename_output(n, 0, g.fresh(n.output[0] + "__old"))
        made = g.insert_reduce(n, "ReduceMean", n.input[0], axes, out + "__mean")
        made.output[0] = out
        g.remove(n)
        changed = True
    return changed
