"""The groups of `runtime_cases.py` that hold com.microsoft's quantised operators.

Integers have to agree exactly: the scales below are no round numbers, so that few results lie near the middle between
two integers, where the last bit of a float would decide. Floats agree exactly in declared precision too, but every case
runs in float64 as well.
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
    certain = np.array([[255, 0, 3], [9, 9, 0]], np.uint8)
    grids = [np.array(1.0, np.float32), np.array(0, np.uint8), np.array(1 / 255, np.float32), np.array(0, np.uint8)]
    c.case("qlinear_softmax_certain", "QLinearSoftmax", [certain, *grids], exact=True, opset=13)


def pools(c):
    q = Quantised(c)
    for kind in KINDS:
        name = kind.__name__
        for last in (0, 1):
            x, out = q.tensor(kind, 2, 5, 6, 7), q.grid(kind, 0.04)
            end = f"{'last' if last else 'first'}_{name}"
            op = "QLinearGlobalAveragePool"
            c.case(f"qlinear_global_average_pool_{end}", op, [*x, *out], channels_last=last, exact=True)
            for setting, attributes in [
                ("plain", dict(strides=[2, 1])),
                ("pads", dict(pads=[1, 0, 1, 2])),
                ("counted", dict(pads=[1, 0, 1, 2], count_include_pad=1)),
                ("ceil", dict(strides=[2, 2], ceil_mode=1)),
                ("same", dict(strides=[2, 2], auto_pad="SAME_UPPER")),
            ]:
                settings = dict(kernel_shape=[2, 3], channels_last=last, **attributes)
                c.case(f"qlinear_average_pool_{setting}_{end}", "QLinearAveragePool", [*x, *out], exact=True, **settings)
        x = q.integers(kind, 2, 6, 7, 3)
        settings = dict(kernel_shape=[2, 3], strides=[1, 2], pads=[1, 1, 0, 1])
        c.case(f"nhwc_max_pool_{name}", "NhwcMaxPool", [x], exact=True, **settings)


def products(c):
    q = Quantised(c)
    single = lambda *x: np.array(x, np.float32)
    for kind in KINDS:
        name = kind.__name__
        a, b, bias = q.tensor(np.uint8, 2, 5, 33), q.tensor(kind, 33, 9), c.normal(9)
        op, given = "MatMulIntegerToFloat", [a[0], b[0], a[1], b[1], a[2], b[2]]
        c.case(f"matmul_integer_to_float_{name}", op, given)
        c.case(f"matmul_integer_to_float_no_zeros_{name}", op, given[:4])
        c.case(f"matmul_integer_to_float_bias_{name}", op, [*given, bias])
        scales, zeros = (c.random.random(9) + 0.5).astype(np.float32), q.integers(kind, 9)
        columns = [a[0], b[0], a[1], scales, a[2], zeros, bias]
        c.case(f"matmul_integer_to_float_columns_{name}", op, columns)
        x = c.normal(2, 5, 33)
        op = "DynamicQuantizeMatMul"
        c.case(f"dynamic_quantize_matmul_{name}", op, [x, b[0], b[1], b[2]])
        c.case(f"dynamic_quantize_matmul_columns_{name}", op, [x, b[0], scales, zeros, bias])
        c.case(f"dynamic_quantize_matmul_positive_{name}", op, [np.abs(x) + 1, b[0], b[1]])
        a = q.tensor(np.uint8, 5, 33)
        out = [single(2.3)[0:1], np.array([117], np.uint8)]
        whole = lambda *shape: c.random.integers(-3000, 3000, shape).astype(np.int32)
        for part, end, exact in [("integer", out, True), ("float", [], False)]:
            c.case(f"qgemm_{part}_{name}", "QGemm", [*a, *b, whole(9), *end], alpha=0.7, exact=exact)
            turned = [a[0].T.copy(), *a[1:], b[0].T.copy(), *b[1:]]
            settings = dict(transA=1, transB=1, exact=exact)
            c.case(f"qgemm_transposed_{part}_{name}", "QGemm", [*turned, whole(5, 1), *end], **settings)
            columns = [*a, b[0], scales, zeros, None, *end]
            c.case(f"qgemm_columns_{part}_{name}", "QGemm", columns, exact=exact)


def convolution(c):
    q = Quantised(c)
    for kind in KINDS:
        x, w = q.tensor(np.uint8, 1, 6, 5, 4), [q.integers(kind, 3, 4, 2, 3), *q.grid(kind)]
        w[2] = np.array(0, kind)
        bias = c.random.integers(-3000, 3000, 3).astype(np.int32)
        inputs = [*x, *w, *q.grid(np.uint8, 2.0), bias]
        settings = dict(channels_last=1, strides=[2, 1], pads=[1, 0, 0, 1], kernel_shape=[2, 3])
        c.case(f"qlinear_conv_channels_last_{kind.__name__}", "QLinearConv", inputs, exact=True, **settings)


def blocks(c):
    q = Quantised(c)
    batch, positions, hidden, heads = 2, 5, 12, 3
    x, w = q.tensor(np.uint8, batch, positions, hidden, scale=0.02), q.tensor(np.int8, hidden, 3 * hidden, scale=0.005)
    bias, plain = c.normal(3 * hidden), dict(num_heads=heads)
    lengths = np.array([3, 5], np.int32)
    c.case("q_attention", "QAttention", [x[0], w[0], bias, x[1], w[1], None, x[2], w[2]], **plain)
    c.case("q_attention_lengths", "QAttention", [x[0], w[0], bias, x[1], w[1], lengths, x[2], w[2]], **plain)
    c.case("q_attention_causal", "QAttention", [x[0], w[0], bias, x[1], w[1], None, x[2], w[2]], unidirectional=1, **plain)
    scales, zeros = (c.random.random(3 * hidden) * 0.01 + 0.002).astype(np.float32), np.zeros(3 * hidden, np.int8)
    c.case("q_attention_columns", "QAttention", [x[0], w[0], bias, x[1], scales, None, x[2], zeros], **plain)
    past = c.normal(2, batch, heads, 4, hidden // heads)
    inputs = [x[0], w[0], bias, x[1], w[1], None, x[2], w[2], past]
    c.case("q_attention_past", "QAttention", inputs, outputs=2, unidirectional=1, **plain)
    ids = c.random.integers(0, 9, (batch, positions)).astype(np.int32)
    kinds = c.random.integers(0, 2, (batch, positions)).astype(np.int32)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
    tables = [q.tensor(np.uint8, n, 6) for n in (9, 7, 2)] + [q.tensor(np.uint8, 6) for _ in range(2)]
    parts = [[t[i] for t in tables] for i in range(3)]
    inputs = [ids, kinds, *parts[0], mask, *parts[1], *parts[2]]
    c.case("q_embed_layer_norm", "QEmbedLayerNormalization", inputs, outputs=2, epsilon=1e-5)


def grids(c):
    q = Quantised(c)
    x = c.normal(3, 8, spread=3.0)
    for kind in [*KINDS, np.int16, np.uint16]:
        scale, zero = q.grid(kind, 0.05)
        c.case(f"quantize_linear_{kind.__name__}", "QuantizeLinear", [x, scale, zero], exact=True)
        c.case(f"dequantize_linear_{kind.__name__}", "DequantizeLinear", [q.integers(kind, 3, 8), scale, zero], exact=True)
    scales, zeros = (c.random.random(8) * 0.1 + 0.01).astype(np.float32), q.integers(np.int8, 8)
    c.case("quantize_linear_axis", "QuantizeLinear", [x, scales, zeros], axis=1, exact=True)


GROUPS = [binary, tables, softmax, pools, products, convolution, blocks, grids]
