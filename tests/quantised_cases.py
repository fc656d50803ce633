"""The groups of `runtime_cases.py` that hold com.microsoft's quantised operators.

Integers have to agree exactly: the scales below are no round numbers, so that few results lie near the middle between
two integers, where the last bit of a float would decide.
"""

import numpy as np

KINDS = [np.uint8, np.int8]


class Quantised:
    """Arrays of 8-bit integers that come with a scale and a zero point."""

    def __init__(self, cases):
        self.random = cases.random

    def integers(self, kind, *shape):
        limits = np.iinfo(kind)
        return self.random.integers(limits.min, limits.max + 1, shape).astype(kind)

    def grid(self, kind, scale=0.05):
        """A scale near `scale` and a zero point in the middle half of the range."""
        limits = np.iinfo(kind)
        middle = (limits.max + limits.min) // 2
        zero = self.random.integers(middle - 40, middle + 41)
        return [np.array(scale * self.random.uniform(0.8, 1.25), np.float32), np.array(zero, kind)]

    def tensor(self, kind, *shape, scale=0.05):
        return [self.integers(kind, *shape), *self.grid(kind, scale)]


def binary(c):
    q = Quantised(c)
    for kind in KINDS:
        name = kind.__name__
        for op, short, scale in [("QLinearAdd", "add", 0.08), ("QLinearMul", "mul", 0.4)]:
            for shape, a, b in [
                ("same", (3, 67), (3, 67)),
                ("row", (2, 3, 5), (5,)),
                ("column", (2, 3, 5), (3, 1)),
                ("left_column", (3, 1), (2, 3, 5)),
                ("scalar", (4, 9), ()),
                ("left_scalar", (1,), (4, 9)),
            ]:
                inputs = [*q.tensor(kind, *a), *q.tensor(kind, *b), *q.grid(kind, scale)]
                c.case(f"qlinear_{short}_{shape}_{name}", op, inputs, exact=True)
    floats = [np.array(s, np.float32) for s in (0.1, 0.2, 0.3)]
    a, b = q.integers(np.uint8, 40), q.integers(np.uint8, 40)
    c.case("qlinear_add_no_zeros", "QLinearAdd", [a, floats[0], None, b, floats[1], None, floats[2]], exact=True)


def tables(c):
    q = Quantised(c)
    for kind in KINDS:
        name = kind.__name__
        every = np.arange(256).astype(np.uint8).view(kind)
        c.case(f"qlinear_sigmoid_{name}", "QLinearSigmoid", [every, *q.grid(kind), *q.grid(kind, 0.004)], exact=True)
        inputs = [every, *q.grid(kind), *q.grid(kind, 0.03)]
        c.case(f"qlinear_leaky_relu_{name}", "QLinearLeakyRelu", inputs, alpha=0.3, exact=True)
        parts = [q.tensor(kind, 2, n, 3) for n in (1, 4, 2)]
        inputs = [*q.grid(kind), *parts[0], *parts[1], *parts[2]]
        c.case(f"qlinear_concat_{name}", "QLinearConcat", inputs, axis=-2, exact=True)
        same = [*parts[0][1:], *parts[0], parts[1][0], *parts[0][1:]]
        c.case(f"qlinear_concat_one_grid_{name}", "QLinearConcat", same, axis=1, exact=True)
        condition = q.random.random((4, 1)) > 0.5
        inputs = [condition, *q.tensor(kind, 2, 4, 3), *q.tensor(kind, 3), *q.grid(kind)]
        c.case(f"qlinear_where_{name}", "QLinearWhere", inputs, exact=True)


def softmax(c):
    q = Quantised(c)
    for kind in KINDS:
        limits = np.iinfo(kind)
        for name, shape, attributes in [
            ("last", (3, 17), dict(opset=13)),
            ("axis", (2, 5, 3), dict(opset=17, axis=1)),
            ("flat", (2, 3, 4), dict(opset=12)),
            ("flat_axis", (2, 3, 4), dict(opset=11, axis=2)),
        ]:
            x = q.tensor(kind, *shape, scale=0.03)
            out = [np.array(0.0039, np.float32), np.array(limits.min, kind)]
            c.case(f"qlinear_softmax_{name}_{kind.__name__}", "QLinearSoftmax", [*x, *out], exact=True, **attributes)


GROUPS = [binary, tables, softmax]
