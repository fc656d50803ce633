"""Borders, windows and resampling."""
from ..graph import attribute, set_attribute
from .registry import fault, pick, planted


@fault("padding")
def pads_moved(g, rng):
    """As much padding as meant, on the wrong side: the result is shifted by one place."""
    node = pick(rng, (n for n in g.of("Conv", "ConvTranspose", "MaxPool", "AveragePool") if any(attribute(n, "pads", [0])) and max(attribute(n, "kernel_shape", [3])) > 1))
    if node is None:
        return None
    pads = list(attribute(node, "pads"))
    half = len(pads) // 2
    axis = pick(rng, [i for i in range(half) if pads[i] or pads[i + half]])
    step = 1 if pads[axis + half] == 0 or pads[axis] and rng.integers(2) else -1
    pads[axis] -= step
    pads[axis + half] += step
    set_attribute(node, "pads", pads)
    return planted(node)


@fault("padding")
def dilation(g, rng):
    """Another dilation, with the padding that keeps the shape."""
    node = pick(rng, (n for n in g.of("Conv") if set(attribute(n, "kernel_shape", [1])) == {3} and set(attribute(n, "strides", [1])) == {1}
                      and len(set(attribute(n, "pads", [0]))) == 1 and attribute(n, "pads", [0])[0] == attribute(n, "dilations", [1])[0]))
    if node is None:
        return None
    new = 2 if attribute(node, "dilations", [1])[0] == 1 else 1
    rank = len(attribute(node, "kernel_shape"))
    set_attribute(node, "dilations", [new] * rank)
    set_attribute(node, "pads", [new] * (2 * rank))
    return planted(node)


@fault("padding")
def border_counted(g, rng):
    """An average that counts the border where it should not, or the other way round."""
    node = pick(rng, (n for n in g.of("AveragePool") if any(attribute(n, "pads", [0]))))
    if node is None:
        return None
    set_attribute(node, "count_include_pad", 1 - attribute(node, "count_include_pad", 0))
    return planted(node)


@fault("padding")
def pad_mode(g, rng):
    node = pick(rng, (n for n in g.of("Pad") if g.shape(n.output[0]) != g.shape(n.input[0])))
    if node is None:
        return None
    set_attribute(node, "mode", pick(rng, ["edge", "constant"]))
    return planted(node)


@fault("index")
def resize_mode(g, rng):
    """Another rule from output places to input places."""
    node = pick(rng, g.of("Resize"))
    if node is None:
        return None
    nearest = attribute(node, "mode", b"nearest") == b"nearest"
    if nearest:
        change = pick(rng, [{"mode": "linear", "coordinate_transformation_mode": "half_pixel"}, {"nearest_mode": "ceil"}])
    else:
        change = pick(rng, [{"mode": "nearest", "nearest_mode": "floor"}, {"coordinate_transformation_mode": "align_corners"}, {"coordinate_transformation_mode": "asymmetric"}])
    for name, value in change.items():
        set_attribute(node, name, value)
    return planted(node)


@fault("padding")
def pads_added(g, rng):
    """Border added in front only: every window begins one place earlier, and the shape stays where the stride leaves room."""
    node = pick(rng, (n for n in g.of("Conv") if max(attribute(n, "strides", [1])) > 1 and max(attribute(n, "kernel_shape", [1])) > 1 and not any(attribute(n, "pads", [0]))))
    if node is None:
        return None
    rank = len(attribute(node, "kernel_shape"))
    set_attribute(node, "pads", [1] * rank + [0] * rank)
    x = g.shape(node.input[0])[2:]
    # only where the shape stays, which it does when the kernel does not end flush with the border
    keep = all((n + 1 - k) // s == (n - k) // s for n, k, s in zip(x, attribute(node, "kernel_shape"), attribute(node, "strides")))
    return planted(node) if keep else None
