"""Rewrites after which values between differ, or look like a fault, and the outputs do not."""
import numpy as np

from .registry import rewrite, some


@rewrite
def mask_value(g, rng):
    """-1e9 for another number that hides as well."""
    changed = False
    for n in g.of("Add", "Where"):
        for i, name in enumerate(n.input):
            c = g.constant(name)
            if c is not None and c.dtype == np.float32 and (c < -1e8).any() and ((c < -1e8) | (c == 0)).all() and np.isfinite(c).all():
                n.input[i] = g.add_constant(np.where(c < -1e8, np.float32(-7e8), c), name + "__hides")
                changed = True
    return changed


@rewrite
def scale_in_two_steps(g, rng):
    changed = False
    for n in some(rng, (n for n in g.of("Mul") if g.computed(n.output[0]) and any((g.scalar(i) or 0) > 0 for i in n.input))):
        i = next(i for i in (0, 1) if (g.scalar(n.input[i]) or 0) > 0)
        root = g.add_constant(np.full(g.shape(n.input[i]), np.sqrt(g.scalar(n.input[i])), np.float32), n.input[i] + "__root")
        first = g.insert(n, "Mul", [n.input[1 - i], root], n.output[0] + "__first")
        n.input[0], n.input[1] = first.output[0], root
        changed = True
    return changed


@rewrite
def relu_as_maximum(g, rng):
    sites = some(rng, (n for n in g.of("Relu") if g.computed(n.output[0])))
    for n in sites:
        n.op_type = "Max"
        n.input.append(g.add_constant(np.float32(0), n.output[0] + "__zero"))
    return bool(sites)


@rewrite
def sigmoid_as_tanh(g, rng):
    """1/2 + tanh(x / 2) / 2."""
    sites = some(rng, (n for n in g.of("Sigmoid") if g.computed(n.output[0])))
    for n in sites:
        half = g.add_constant(np.float32(0.5), n.output[0] + "__half")
        x = g.insert(n, "Mul", [n.input[0], half], n.output[0] + "__x")
        t = g.insert(n, "Tanh", [x.output[0]], n.output[0] + "__t")
        h = g.insert(n, "Mul", [t.output[0], half], n.output[0] + "__h")
        n.op_type = "Add"
        n.input[0] = h.output[0]
        n.input.append(half)
    return bool(sites)


@rewrite
def logits_shifted(g, rng):
    """A number more at each argument of a softmax changes nothing."""
    sites = some(rng, (n for n in g.of("Softmax") if g.computed(n.output[0])))
    for n in sites:
        more = g.insert(n, "Add", [n.input[0], g.add_constant(np.float32(0.75), n.output[0] + "__more")], n.output[0] + "__shifted")
        n.input[0] = more.output[0]
    return bool(sites)


@rewrite
def units_permuted(g, rng):
    """The hidden units of two products with a function of one number between them in another order."""
    for first in some(rng, g.of("MatMul", "Gemm"), 50):
        w, at = g.constant(first.input[1]), first
        if w is None or w.ndim != 2 or any(a.name.startswith("trans") and a.i for a in first.attribute):
            continue
        order = rng.permutation(w.shape[1])
        moved = []
        if len(first.input) > 2:
            bias = g.constant(first.input[2])
            if bias is None or bias.ndim != 1:
                continue
            moved.append((first, 2, bias[order]))
        while True:
            readers = g.consumers(at.output[0])
            if len(readers) != 1 or g.is_output(at.output[0]):
                break
            at = readers[0]
            if at.op_type == "Add":
                i = next((i for i in (0, 1) if g.constant(at.input[i]) is not None), None)
                if i is None or g.constant(at.input[i]).shape != (w.shape[1],):
                    break
                moved.append((at, i, g.constant(at.input[i])[order]))
            elif at.op_type in ("MatMul", "Gemm"):
                v = g.constant(at.input[1])
                if v is None or v.shape[0] != w.shape[1] or any(a.name.startswith("trans") and a.i for a in at.attribute):
                    break
                for n, i, c in [*moved, (first, 1, w[:, order]), (at, 1, v[order])]:
                    n.input[i] = g.add_constant(c, n.input[i] + "__permuted")
                return True
            elif at.op_type not in ("Relu", "Tanh", "Sigmoid", "Selu", "Elu", "Gelu"):
                break
    return False


@rewrite
def queries_and_keys_scaled(g, rng):
    """Twice the weight of one factor of a product, half of the other."""
    for n in some(rng, g.of("MatMul"), 20):
        if all(g.computed(x) for x in n.input) and len(n.input) == 2:
            up = g.insert(n, "Mul", [n.input[0], g.add_constant(np.float32(2), n.output[0] + "__two")], n.output[0] + "__up")
            down = g.insert(n, "Mul", [n.input[1], g.add_constant(np.float32(0.5), n.output[0] + "__half")], n.output[0] + "__down")
            n.input[0], n.input[1] = up.output[0], down.output[0]
            return True
    return False
