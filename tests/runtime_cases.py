"""Writes cases for com.microsoft's operators and for lists: a small model, inputs, and what ONNX Runtime makes of them.

usage: runtime_cases.py FOLDER

The cases are kept in crates/run/tests/runtime, so that the suite needs no ONNX Runtime. Their form is that of ONNX's
node tests: NAME/model.onnx, NAME/tolerance.txt (relative and absolute), NAME/test_data_set_0/{input,output}_K.pb.
"""

import shutil
import sys
from pathlib import Path

import list_cases
import numpy as np
import onnx
import onnxruntime
import quantised_cases
from onnx import TensorProto, helper, numpy_helper

DOMAIN = "com.microsoft"
TYPES = {
    np.bool_: TensorProto.BOOL,
    np.float32: TensorProto.FLOAT,
    np.int8: TensorProto.INT8,
    np.int16: TensorProto.INT16,
    np.int32: TensorProto.INT32,
    np.uint8: TensorProto.UINT8,
    np.uint16: TensorProto.UINT16,
}


class Cases:
    def __init__(self, folder):
        self.folder, self.random = Path(folder), np.random.default_rng(11)

    def normal(self, *shape, spread=1.0):
        return (self.random.standard_normal(shape) * spread).astype(np.float32)

    def case(self, name, op, inputs, outputs=1, exact=False, **attributes):
        """`inputs` are arrays, or None where one is left out; `outputs` a number, or which ones are asked for; `exact`
        where every bit has to agree."""
        wanted = [True] * outputs if isinstance(outputs, int) else outputs
        names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
        made = [f"y{i}" if w else "" for i, w in enumerate(wanted)]
        node = helper.make_node(op, names, made, domain=DOMAIN, **attributes)
        given = [(n, x) for n, x in zip(names, inputs) if x is not None]
        graph = helper.make_graph(
            [node], name, [value_info(n, x) for n, x in given], [onnx.ValueInfoProto(name=n) for n in made if n]
        )
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        self.model(name, model, given, exact)

    def model(self, name, model, given, exact=False):
        """Whatever a model of several nodes makes of named arrays."""
        graph = model.graph
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            results = session.run(None, dict(given))
        except Exception as error:
            print(f"left out: {name}: {str(error).splitlines()[0][:160]}", file=sys.stderr)
            return
        for info, result in zip(graph.output, results):
            info.CopyFrom(value_info(info.name, result))
        place = self.folder / name / "test_data_set_0"
        place.mkdir(parents=True)
        onnx.save(model, place.parent / "model.onnx")
        (place.parent / "tolerance.txt").write_text("0 0\n" if exact else "1e-5 2e-6\n")
        for kind, tensors in [("input", [x for _, x in given]), ("output", results)]:
            for k, x in enumerate(tensors):
                (place / f"{kind}_{k}.pb").write_bytes(numpy_helper.from_array(x).SerializeToString())


def value_info(name, x):
    return helper.make_tensor_value_info(name, TYPES[x.dtype.type], x.shape)


def attention(c):
    batch, positions, hidden, heads = 2, 5, 12, 3
    x, w, b = c.normal(batch, positions, hidden), c.normal(hidden, 3 * hidden, spread=0.3), c.normal(3 * hidden)
    ints = lambda *x: np.array(x, np.int32)
    plain = dict(num_heads=heads)
    c.case("attention_plain", "Attention", [x, w, b], **plain)
    c.case("attention_causal", "Attention", [x, w, b], unidirectional=1, **plain)
    c.case("attention_scale", "Attention", [x, w, b], scale=0.25, **plain)
    c.case("attention_lengths", "Attention", [x, w, b, ints(3, 5)], **plain)
    c.case("attention_ends_and_starts", "Attention", [x, w, b, ints(4, 5, 1, 0)], **plain)
    padding = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
    c.case("attention_padding", "Attention", [x, w, b, padding], **plain)
    c.case("attention_padding_filter", "Attention", [x, w, b, padding], mask_filter_value=-3.0, **plain)
    square = (c.random.random((batch, positions, positions)) > 0.3).astype(np.int32)
    square[:, :, 0] = 1
    c.case("attention_square_mask", "Attention", [x, w, b, square], **plain)
    bias = c.normal(batch, heads, positions, positions)
    c.case("attention_bias", "Attention", [x, w, b, None, None, bias], **plain)
    c.case("attention_bias_and_padding", "Attention", [x, w, b, padding, None, bias], **plain)
    past = c.normal(2, batch, heads, 4, hidden // heads)
    c.case("attention_past", "Attention", [x, w, b, None, past], outputs=2, **plain)
    c.case("attention_past_causal", "Attention", [x, w, b, None, past], outputs=2, unidirectional=1, **plain)
    uneven = c.normal(hidden, 2 * hidden + 6, spread=0.3), c.normal(2 * hidden + 6)
    c.case("attention_hidden_sizes", "Attention", [x, *uneven], qkv_hidden_sizes=[hidden, hidden, 6], **plain)


def multi_head(c):
    batch, positions, keys, heads, size = 2, 4, 6, 2, 5
    hidden = heads * size
    q, k, v = c.normal(batch, positions, hidden), c.normal(batch, keys, hidden), c.normal(batch, keys, hidden)
    plain = dict(num_heads=heads)
    c.case("multi_head_cross", "MultiHeadAttention", [q, k, v], **plain)
    c.case("multi_head_scale", "MultiHeadAttention", [q, k, v], scale=0.1, **plain)
    c.case("multi_head_bias", "MultiHeadAttention", [q, k, v, c.normal(3 * hidden)], **plain)
    padding = np.array([[1, 1, 1, 1, 0, 0], [1] * 6], np.int32)
    c.case("multi_head_padding", "MultiHeadAttention", [q, k, v, None, padding], **plain)
    bias = c.normal(1, heads, positions, keys)
    c.case("multi_head_attention_bias", "MultiHeadAttention", [q, k, v, None, None, bias], **plain)
    own = [c.normal(batch, positions, hidden) for _ in range(3)]
    c.case("multi_head_causal", "MultiHeadAttention", own, unidirectional=1, **plain)
    past = [c.normal(batch, heads, 3, size) for _ in range(2)]
    c.case("multi_head_past", "MultiHeadAttention", [*own, None, None, None, *past], outputs=3, **plain)
    c.case(
        "multi_head_past_causal", "MultiHeadAttention", [*own, None, None, None, *past], outputs=3, unidirectional=1, **plain
    )
    ready = [c.normal(batch, heads, keys, size) for _ in range(2)]
    c.case("multi_head_keys_ready", "MultiHeadAttention", [q, *ready], **plain)
    wide = c.normal(batch, keys, heads * 3)
    c.case("multi_head_value_size", "MultiHeadAttention", [q, k, wide], **plain)


def group_query(c):
    batch, heads, key_heads, size, longest = 1, 2, 1, 16, 12
    plain = dict(num_heads=heads, kv_num_heads=key_heads)
    total = lambda n: np.array([n], np.int32)
    empty = [c.normal(batch, key_heads, 0, size) for _ in range(2)]
    angles = np.outer(np.arange(longest), 1 / 100 ** (np.arange(size // 2) / (size // 2)))
    caches = [np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)]

    def prompt(name, n=6, extra=(), rotary=(), packed=False, **attributes):
        if packed:
            qkv = [c.normal(batch, n, (heads + 2 * key_heads) * size), None, None]
        else:
            qkv = [c.normal(batch, n, heads * size)] + [c.normal(batch, n, key_heads * size) for _ in range(2)]
        ends = np.full(batch, n - 1, np.int32)
        inputs = [*qkv, *empty, ends, total(n), *(rotary or [None, None]), *extra]
        c.case(f"group_query_{name}", "GroupQueryAttention", inputs, outputs=3, **plain, **attributes)

    prompt("prompt")
    prompt("packed", packed=True)
    prompt("scale", scale=0.2)
    prompt("softcap", softcap=2.0)
    prompt("window", local_window_size=3)
    prompt("smooth", smooth_softmax=1)
    prompt("sink", extra=[None, None, c.normal(heads)])
    prompt("bias", extra=[None, c.normal(1, heads, 6, 6)])
    prompt("rotary", rotary=caches, do_rotary=1)
    prompt("rotary_interleaved", rotary=caches, do_rotary=1, rotary_interleaved=1)
    prompt("both_ways", causal=0)
    past = [c.normal(batch, key_heads, 7, size) for _ in range(2)]
    one = [c.normal(batch, 1, heads * size)] + [c.normal(batch, 1, key_heads * size) for _ in range(2)]
    for name, extra, attributes in [
        ("decode", [None, None], {}),
        ("decode_rotary", caches, dict(do_rotary=1)),
        ("decode_window", [None, None], dict(local_window_size=4)),
    ]:
        ends = np.full(batch, 7, np.int32)
        inputs = [*one, *past, ends, total(8), *extra]
        c.case(f"group_query_{name}", "GroupQueryAttention", inputs, outputs=3, **plain, **attributes)


def embedding(c):
    batch, positions, size = 2, 4, 6
    ids = c.random.integers(0, 9, (batch, positions)).astype(np.int32)
    kinds = c.random.integers(0, 2, (batch, positions)).astype(np.int32)
    words, places, segments = c.normal(9, size), c.normal(7, size), c.normal(2, size)
    gamma, beta = c.normal(size), c.normal(size)
    mask = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.int32)
    op = "EmbedLayerNormalization"
    c.case("embed_all", op, [ids, kinds, words, places, segments, gamma, beta, mask], outputs=2, epsilon=1e-5)
    c.case("embed_no_segments", op, [ids, None, words, places, None, gamma, beta], outputs=2)
    where = np.array([[3, 2, 1, 0], [0, 2, 4, 6]], np.int32)
    inputs = [ids, kinds, words, places, segments, gamma, beta, None, where]
    c.case("embed_position_ids", op, inputs, outputs=[True, True, True])
    c.case("embed_one_row_of_ids", op, [*inputs[:8], where[1:]], outputs=[True, True, True])


def few_bits(c):
    a = c.normal(3, 40)
    n, k = 5, 40
    for bits, block in [(4, 16), (4, 32), (8, 16), (2, 16)]:
        blocks = -(-k // block)
        packed = c.random.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8)
        scales = np.abs(c.normal(n * blocks, spread=0.1)) + np.float32(0.01)
        settings = dict(N=n, K=k, bits=bits, block_size=block)
        name = f"matmul_{bits}_bits_{block}"
        c.case(name, "MatMulNBits", [a, packed, scales], **settings)
        zeros = c.random.integers(0, 256, n * -(-blocks * bits // 8)).astype(np.uint8)
        c.case(f"{name}_zeros", "MatMulNBits", [a, packed, scales, zeros], **settings)
        floats = c.normal(n * blocks, spread=3.0)
        if bits < 8:
            c.case(f"{name}_float_zeros", "MatMulNBits", [a, packed, scales, floats], **settings)
        c.case(f"{name}_bias", "MatMulNBits", [a, packed, scales, None, None, c.normal(n)], **settings)


def small(c):
    x, b = c.normal(2, 3, 8), c.normal(8)
    c.case("bias_gelu", "BiasGelu", [x, b])
    c.case("fast_gelu", "FastGelu", [x])
    c.case("fast_gelu_bias", "FastGelu", [x, b])
    c.case("quick_gelu", "QuickGelu", [x], alpha=1.5)
    c.case("gelu", "Gelu", [x])
    skip = c.normal(2, 3, 8)
    c.case("skip_layer_norm", "SkipLayerNormalization", [x, skip, b, c.normal(8)], epsilon=1e-5)
    full = [x, skip, b, c.normal(8), c.normal(8)]
    c.case("skip_layer_norm_bias", "SkipLayerNormalization", full, outputs=[True, False, False, True], epsilon=1e-5)
    c.case("skip_rms_norm", "SkipSimplifiedLayerNormalization", [x, skip, b], outputs=[True, False, False, True])
    image, weight, bias = c.normal(1, 2, 5, 5), c.normal(3, 2, 3, 3), c.normal(3)
    for activation, parameters in [("Relu", []), ("Tanh", []), ("Sigmoid", []), ("LeakyRelu", [0.1]), ("Clip", [-0.5, 0.75]), ("HardSigmoid", [0.2, 0.6])]:
        c.case(
            f"fused_conv_{activation.lower()}", "FusedConv", [image, weight, bias],
            activation=activation, **({"activation_params": parameters} if parameters else {}), pads=[1, 1, 1, 1],
        )
    m = [c.normal(4, 6), c.normal(6, 5), c.normal(5)]
    parameters = {
        "Elu": dict(alpha=0.9), "Selu": dict(alpha=1.6, gamma=1.05), "LeakyRelu": dict(alpha=0.1),
        "ThresholdedRelu": dict(alpha=0.5), "HardSigmoid": dict(alpha=0.2, beta=0.5),
    }
    for activation in ["Relu", "Tanh", "Sigmoid", "Softplus", "Softsign", *parameters]:
        own = {f"activation_{k}": v for k, v in parameters.get(activation, {}).items()}
        c.case(f"fused_gemm_{activation.lower()}", "FusedGemm", m, activation=activation, **own)
    c.case("fused_matmul", "FusedMatMul", [c.normal(2, 4, 3), c.normal(2, 5, 4)], transA=1, transB=1, alpha=0.5)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    cases = Cases(sys.argv[1])
    for group in [attention, multi_head, group_query, embedding, few_bits, small, *quantised_cases.GROUPS, *list_cases.GROUPS]:
        group(cases)
