"""Layout written otherwise."""
import numpy as np

from ..graph import attribute, drop_attributes, set_attribute
from .registry import rewrite, some


@rewrite
def transpose_twice(g, rng):
    """Turned and turned back."""
    changed = False
    for n in some(rng, (n for n in g.nodes if g.computed(n.output[0]) and len(g.shape(n.output[0])) > 2 and not g.is_output(n.output[0]) and len(n.output) == 1), 3):
        rank, out = len(g.shape(n.output[0])), n.output[0]
        perm = list(np.roll(np.arange(rank), 1))
        g.rename_output(n, 0, g.fresh(out + "__straight"))
        turned = g.insert_after(n, "Transpose", [n.output[0]], out + "__turn", perm=[int(p) for p in perm])
        g.insert_after(turned, "Transpose", [turned.output[0]], out + "__back", output=out, perm=[int(p) for p in np.argsort(perm)])
        changed = True
    return changed


@rewrite
def transpose_pushed(g, rng):
    """A transpose moved to the other side of an elementwise operator."""
    unary = ("Relu", "Sigmoid", "Tanh", "Erf", "Neg", "Sqrt", "HardSwish", "LeakyRelu", "Elu")
    changed = False
    for n in g.of("Transpose"):
        before = g.producer(n.input[0])
        if before is None or len(g.consumers(n.input[0])) != 1 or g.is_output(n.input[0]):
            continue
        scalar = before.op_type in ("Mul", "Add", "Div") and any(g.scalar(i) is not None for i in before.input)
        if before.op_type not in unary and not scalar:
            continue
        x = next(i for i in before.input if g.scalar(i) is None)
        turned = g.insert(before, "Transpose", [x], n.output[0] + "__early", perm=list(attribute(n, "perm")))
        before.input[list(before.input).index(x)] = turned.output[0]
        before.output[0] = n.output[0]
        g.remove(n)
        changed = True
    return changed


@rewrite
def transpose_late(g, rng):
    """The other way: scaling by one number before a transpose is done behind it, at its readers."""
    changed = False
    for n in some(rng, (n for n in g.of("Mul", "Add") if any(g.scalar(i) is not None for i in n.input) and g.computed(n.output[0]) and len(g.shape(n.output[0])) > 1 and not g.is_output(n.output[0])), 2):
        rank, out = len(g.shape(n.output[0])), n.output[0]
        perm = [rank - 1, *range(rank - 1)]
        x = next((i for i in n.input if g.scalar(i) is None), None)
        if x is None or len(g.shape(x)) != rank:
            continue
        turned = g.insert(n, "Transpose", [x], out + "__turn", perm=perm)
        n.input[list(n.input).index(x)] = turned.output[0]
        g.rename_output(n, 0, g.fresh(out + "__turned"))
        g.insert_after(n, "Transpose", [n.output[0]], out + "__back", output=out, perm=[int(p) for p in np.argsort(perm)])
        changed = True
    return changed


@rewrite
def reshape_forms(g, rng):
    """Squeeze, Unsqueeze and Flatten as Reshape; shapes with -1 and 0 spelled out, and full shapes with -1."""
    changed = False
    for n in g.of("Reshape", "Squeeze", "Unsqueeze", "Flatten"):
        if not g.computed(n.output[0]):
            continue
        shape = list(g.shape(n.output[0]))
        if rng.integers(2):
            shape[int(rng.integers(len(shape)))] = -1
        n.op_type = "Reshape"
        drop_attributes(n)
        x = n.input[0]
        del n.input[:]
        n.input.extend([x, g.add_constant(np.array(shape, np.int64), n.output[0] + "__shape")])
        set_attribute(n, "allowzero", None)
        changed = True
    return changed


@rewrite
def flattened_matmul(g, rng):
    """A product of a batch of rows done on the flattened rows."""
    changed = False
    for n in some(rng, (n for n in g.of("MatMul") if g.constant(n.input[1]) is not None and g.constant(n.input[1]).ndim == 2 and g.computed(n.input[0]) and len(g.shape(n.input[0])) == 3), 4):
        out, stem = n.output[0], n.output[0] + "__rows"
        flat = g.insert(n, "Reshape", [n.input[0], g.add_constant(np.array([-1, g.shape(n.input[0])[-1]], np.int64), stem + "_flat")], stem)
        n.input[0] = flat.output[0]
        g.rename_output(n, 0, g.fresh(out + "__flat"))
        g.insert_after(n, "Reshape", [n.output[0], g.add_constant(np.array(g.shape(out), np.int64), stem + "_shape")], stem, output=out)
        changed = True
    return changed
