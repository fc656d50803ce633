"""Epsilon, gain, statistics and groups of normalisations."""
import numpy as np

from ..graph import set_attribute
from .registry import fault, pick, planted

NORMS = ("LayerNormalization", "InstanceNormalization", "BatchNormalization")


def _rms_eps(g):
    """(node, index): the tiny constant added to a mean of squares."""
    sites = []
    for n in g.of("Add"):
        for i, name in enumerate(n.input):
            c, x = g.scalar(name), g.producer(n.input[1 - i])
            if c is not None and 0 < c < 1e-3 and x is not None and x.op_type == "ReduceMean":
                sites.append((n, i))
    return sites


def rms_gains(g):
    """(node, index, weight): the product of a normalised tensor and its gain."""
    sites = []
    for n in g.of("Mul"):
        for i, name in enumerate(n.input):
            w = g.constant(name)
            before = {p.op_type for a in g.ancestors(n.output[0], 8) if (p := g.producer(a)) is not None}
            if w is not None and w.ndim == 1 and w.size > 4 and {"Sqrt"} & before and {"ReduceMean"} & {p.op_type for a in g.ancestors(n.output[0], 14) if (p := g.producer(a)) is not None}:
                x = g.producer(n.input[1 - i])
                if x is not None and x.op_type in ("Mul", "Cast", "Div"):
                    sites.append((n, i, w))
    return sites


@fault("epsilon")
def small_eps(g, rng):
    sites = [(n, None) for n in g.of(*NORMS)] + _rms_eps(g)
    found = pick(rng, sites)
    if found is None:
        return None
    node, i = found
    if i is None:
        set_attribute(node, "epsilon", pick(rng, [1e-3, 1e-4]))
    else:
        node.input[i] = g.add_constant(np.full(g.shape(node.input[i]), 1e-4, np.float32), node.input[i] + "__z")
    return planted(node)


@fault("normalisation")
def norm_gain(g, rng):
    """The gain forgotten, or w where 1 + w is meant and the other way round."""
    sites = [(n, 1, g.constant(n.input[1])) for n in g.of(*NORMS) if g.constant(n.input[1]) is not None and g.constant(n.input[1]).size > 4] + rms_gains(g)
    found = pick(rng, sites)
    if found is None:
        return None
    node, i, w = found
    new = pick(rng, [np.ones_like(w), w - 1, w + 1])
    node.input[i] = g.add_constant(new.astype(np.float32), node.input[i] + "__z")
    return planted(node)


@fault("bias")
def norm_shift(g, rng):
    """The shift of a normalisation forgotten."""
    sites = [n for n in g.of(*NORMS) if len(n.input) > 2 and g.constant(n.input[2]) is not None and np.abs(g.constant(n.input[2])).max() > 0]
    node = pick(rng, sites)
    if node is None:
        return None
    node.input[2] = g.add_constant(np.zeros_like(g.constant(node.input[2])), node.input[2] + "__z")
    return planted(node)


@fault("normalisation")
def batch_norm_statistics(g, rng):
    """Mean or variance of a batch norm still as they were at the start, or those of another."""
    node = pick(rng, g.of("BatchNormalization"))
    if node is None:
        return None
    i = int(rng.integers(3, 5))
    old = g.constant(node.input[i])
    new = (np.zeros_like(old) if i == 3 else np.ones_like(old)) if rng.integers(2) else np.roll(old, 1)
    node.input[i] = g.add_constant(new, node.input[i] + "__z")
    return planted(node)


@fault("mode")
def batch_norm_training(g, rng):
    """A batch norm that uses the statistics of the batch, as in training."""
    node = pick(rng, (n for n in g.of("BatchNormalization") if g.shape(n.input[0]) is not None))
    if node is None:
        return None
    x, stem = g.values[node.input[0]], node.output[0] + "__batch"
    wide = g.insert(node, "Transpose", [node.input[0]], stem, perm=[1, 0, *range(2, x.ndim)])
    shape = g.add_constant(np.array([x.shape[1], -1], np.int64), stem + "_shape")
    flat = g.insert(node, "Reshape", [wide.output[0], shape], stem)
    added = [wide, flat]
    mean = g.insert_reduce(node, "ReduceMean", flat.output[0], [1], stem)
    off = g.insert(node, "Sub", [flat.output[0], mean.output[0]], stem)
    square = g.insert(node, "Mul", [off.output[0], off.output[0]], stem)
    var = g.insert_reduce(node, "ReduceMean", square.output[0], [1], stem, keepdims=0)
    mean1 = g.insert_reduce(node, "ReduceMean", flat.output[0], [1], stem, keepdims=0)
    node.input[3], node.input[4] = mean1.output[0], var.output[0]
    return planted(*added, mean, off, square, var, mean1, node)


@fault("normalisation")
def group_count(g, rng):
    """Half as many groups as meant."""
    sites = []
    for n in g.of("InstanceNormalization"):
        before = g.producer(n.input[0])
        if before is not None and before.op_type == "Reshape" and g.constant(before.input[1]) is not None and len(g.constant(before.input[1])) == 3 and g.shape(n.input[0])[1] % 2 == 0 and g.constant(n.input[1]) is not None and np.all(g.constant(n.input[1]) == 1):
            sites.append((before, n))
    found = pick(rng, sites)
    if found is None:
        return None
    before, node = found
    b, groups, _ = g.shape(node.input[0])
    before.input[1] = g.add_constant(np.array([b, groups // 2, -1], np.int64), before.input[1] + "__z")
    node.input[1] = g.add_constant(np.ones(groups // 2, np.float32), node.input[1] + "__z")
    node.input[2] = g.add_constant(np.zeros(groups // 2, np.float32), node.input[2] + "__z")
    return planted(before, node)


@fault("normalisation")
def mean_subtracted(g, rng):
    """A root-mean-square norm computed as a layer norm: the mean is taken away first."""
    sites = [n for n in g.of("ReduceMean") if (p := g.producer(n.input[0])) is not None and p.op_type == "Pow" and g.computed(p.input[0])]
    node = pick(rng, sites)
    if node is None:
        return None
    power = g.producer(node.input[0])
    stem, x = power.output[0] + "__centred", power.input[0]
    mean = g.insert_reduce(power, "ReduceMean", x, [-1], stem)
    off = g.insert(power, "Sub", [x, mean.output[0]], stem)
    power.input[0] = off.output[0]
    return planted(mean, off, power)


@fault("normalisation")
def unbiased_variance(g, rng):
    """Divided by n - 1 instead of n."""
    sites = [n for n in g.of("ReduceMean") if (p := g.producer(n.input[0])) is not None and p.op_type in ("Pow", "Mul") and any(c.op_type == "Add" for c in g.consumers(n.output[0]))
             and g.shape(n.output[0]) is not None and len(g.shape(n.output[0])) > 1 and g.shape(n.output[0])[-1] == 1]
    node = pick(rng, sites)
    if node is None:
        return None
    n = g.shape(node.input[0])[-1]
    out = g.rename_output(node, 0, g.fresh(node.output[0] + "__biased"))
    factor = g.add_constant(np.float32(n / (n - 1)), out + "__n")
    scaled = g.insert_after(node, "Mul", [node.output[0], factor], out + "__unbiased", output=out)
    return planted(node, scaled)


@fault("normalisation")
def norm_order(g, rng):
    """Gain and shift of one normalisation taken from another of the same width."""
    norms = [n for n in g.of("LayerNormalization") if len(n.input) > 2 and g.constant(n.input[1]) is not None]
    found = pick(rng, [(n, m) for n in norms for m in norms if n.input[1] != m.input[1] and g.shape(n.input[1]) == g.shape(m.input[1])])
    if found is None:
        return None
    node, other = found
    for i in (1, 2):
        node.input[i] = g.add_constant(g.constant(other.input[i]).copy(), node.input[i] + "__z")
    return planted(node, cause="weight_swap")
