"""Convolutions in other forms."""
import numpy as np

from ..graph import attribute, set_attribute
from .registry import rewrite, some


@rewrite
def norm_behind_convolution(g, rng):
    """The other way round of folding: a convolution's weights divided by what a batch norm behind it multiplies back."""
    changed = False
    for n in some(rng, (n for n in g.of("Conv") if len(n.input) > 2 and g.constant(n.input[1]) is not None and len(g.shape(n.output[0])) == 4), 3):
        w, b = g.constant(n.input[1]).astype(np.float64), g.constant(n.input[2]).astype(np.float64)
        gain, mean = rng.uniform(0.5, 1.5, len(b)), rng.standard_normal(len(b)) * 0.3
        var = rng.uniform(0.4, 2.0, len(b))
        factor = gain / np.sqrt(var + 1e-5)
        out = g.rename_output(n, 0, g.fresh(n.output[0] + "__raw"))
        n.input[1] = g.add_constant((w / factor[:, None, None, None]).astype(np.float32), n.input[1] + "__raw")
        del n.input[2:]
        extra = [g.add_constant(v.astype(np.float32), out + "__bn") for v in (gain, b + mean * factor, mean, var)]
        g.insert_after(n, "BatchNormalization", [n.output[0], *extra], out + "__bn", output=out, epsilon=1e-5)
        changed = True
    return changed


@rewrite
def pointwise_as_product(g, rng):
    """A one-by-one convolution as a matrix product over flattened places."""
    changed = False
    sites = [n for n in g.of("Conv") if (w := g.constant(n.input[1])) is not None and w.ndim == 4 and w.shape[2:] == (1, 1) and attribute(n, "group", 1) == 1 and set(attribute(n, "strides", [1])) == {1} and not any(attribute(n, "pads", [0]))]
    for n in some(rng, sites, 4):
        x, w, out, stem = n.input[0], g.constant(n.input[1]), n.output[0], n.output[0] + "__pw"
        b, c, *places = g.shape(x)
        flat = g.insert(n, "Reshape", [x, g.add_constant(np.array([b, c, -1], np.int64), stem + "_flat")], stem)
        product = g.insert(n, "MatMul", [g.add_constant(w[:, :, 0, 0], stem + "_w"), flat.output[0]], stem)
        value = product.output[0]
        if len(n.input) > 2:
            value = g.insert(n, "Add", [value, g.add_constant(g.constant(n.input[2])[:, None], stem + "_b")], stem).output[0]
        shape = g.add_constant(np.array([b, w.shape[0], *places], np.int64), stem + "_shape")
        n.output[0] = g.fresh(out + "__old")
        g.insert(n, "Reshape", [value, shape], stem, output=out)
        g.remove(n)
        changed = True
    return changed


@rewrite
def border_apart(g, rng):
    """The border of a convolution made by a Pad in front of it."""
    changed = False
    for n in some(rng, (n for n in g.of("Conv") if any(attribute(n, "pads", [0]))), 3):
        pads = list(attribute(n, "pads"))
        half = len(pads) // 2
        full = g.add_constant(np.array([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64), n.output[0] + "__pads")
        padded = g.insert(n, "Pad", [n.input[0], full], n.output[0] + "__padded")
        n.input[0] = padded.output[0]
        set_attribute(n, "pads", [0] * len(pads))
        changed = True
    return changed


@rewrite
def one_dimension_as_two(g, rng):
    """A convolution over time as one over a picture of height one."""
    changed = False
    for n in g.of("Conv"):
        w = g.constant(n.input[1])
        if w is None or w.ndim != 3:
            continue
        out, stem = n.output[0], n.output[0] + "__flat"
        axis = g.add_constant(np.array([2], np.int64), stem + "_axis")
        n.input[0] = g.insert(n, "Unsqueeze", [n.input[0], axis], stem).output[0]
        n.input[1] = g.add_constant(w[:, :, None], n.input[1] + "__flat")
        pads = list(attribute(n, "pads", [0, 0]))
        for name, value in (("kernel_shape", [1, w.shape[2]]), ("pads", [0, pads[0], 0, pads[1]]), ("strides", [1, *attribute(n, "strides", [1])]), ("dilations", [1, *attribute(n, "dilations", [1])])):
            set_attribute(n, name, value)
        g.rename_output(n, 0, g.fresh(out + "__tall"))
        g.insert_after(n, "Squeeze", [n.output[0], axis], stem, output=out)
        changed = True
    return changed
