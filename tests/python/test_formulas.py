"""What isotrace.aten takes PyTorch's operators for, held against PyTorch: each call is recorded, and judged by the
evaluator on what was recorded of its inputs. A formula that is wrong is a culprit, one that is missing is counted."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import isotrace  # noqa: E402
import isotrace.torch  # noqa: E402

F = torch.nn.functional
pytestmark = pytest.mark.heavy


class Call(torch.nn.Module):
    """A function of tensors as a model; those with fractions are parameters, so that their gradients are recorded."""

    def __init__(self, function, tensors):
        super().__init__()
        self.function = function
        self.given = []
        for i, t in enumerate(tensors):
            floats = isinstance(t, torch.Tensor) and t.is_floating_point()
            if floats:
                self.register_parameter(f"p{i}", torch.nn.Parameter(t))
            self.given.append((f"p{i}", None) if floats else (None, t))

    def forward(self, x):
        return self.function(*(getattr(self, name) if name else t for name, t in self.given)) * x


def recorded(folder, function, tensors, train=True):
    torch.manual_seed(1)
    model = Call(function, tensors)
    with isotrace.torch.record(model, folder):
        y = model(torch.tensor(1.5, dtype=next((p.dtype for p in model.parameters()), torch.float32)))
        if train:
            torch.manual_seed(2)
            (y * torch.randn_like(y)).sum().backward()
    return isotrace.diff(folder, folder)


def r(*shape, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype)


def borders():
    """Numbers at which activations change their form, among others."""
    return torch.cat([torch.linspace(-8, 8, 101), torch.tensor([-3.0, 0.0, 3.0, -1.0, 1.0, 6.0, 25.0])])


def norm(kind, x, *rest):
    return kind(x, *rest)


def batch_norm(x, w, b, mean, var):
    return F.batch_norm(x, mean.detach().clone(), var.detach().abs() + 0.5, w, b, training=True, momentum=0.1)


FORMULAS = {
    "relu": (F.relu, lambda: [borders()]),
    "gelu": (F.gelu, lambda: [borders()]),
    "gelu tanh": (lambda x: F.gelu(x, approximate="tanh"), lambda: [borders()]),
    "silu": (F.silu, lambda: [borders()]),
    "sigmoid": (torch.sigmoid, lambda: [borders()]),
    "tanh": (torch.tanh, lambda: [borders()]),
    "hardtanh": (lambda x: F.hardtanh(x, -1, 2), lambda: [borders()]),
    "relu6": (F.relu6, lambda: [borders()]),
    "hardswish": (F.hardswish, lambda: [borders()]),
    "hardsigmoid": (F.hardsigmoid, lambda: [borders()]),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), lambda: [borders()]),
    "elu": (lambda x: F.elu(x, 1.3), lambda: [borders()]),
    "selu": (F.selu, lambda: [borders()]),
    "softplus": (F.softplus, lambda: [borders()]),
    "softplus beta": (lambda x: F.softplus(x, beta=2.0, threshold=5.0), lambda: [borders()]),
    "mish": (F.mish, lambda: [borders()]),
    "logsigmoid": (F.logsigmoid, lambda: [borders()]),
    "glu": (lambda x: F.glu(x, 1), lambda: [r(3, 8, 2)]),
    "prelu": (F.prelu, lambda: [r(2, 5, 3), r(5)]),
    "softmax": (lambda x: F.softmax(x, -1), lambda: [r(4, 9)]),
    "softmax middle": (lambda x: F.softmax(x, 1), lambda: [r(4, 9, 3)]),
    "log_softmax": (lambda x: F.log_softmax(x, 1), lambda: [r(4, 9, 2)]),
    "cross_entropy": (F.cross_entropy, lambda: [r(6, 5), torch.tensor([0, 4, 2, 2, -100, 1])]),
    "cross_entropy weighted": (lambda x, w, t: F.cross_entropy(x, t, w.detach()),
                               lambda: [r(6, 5), r(5).abs() + 0.1, torch.tensor([0, 4, 2, 2, -100, 1])]),
    "cross_entropy sum": (lambda x, t: F.cross_entropy(x, t, reduction="sum"), lambda: [r(3, 5), torch.tensor([0, 4, 2])]),
    "cross_entropy none": (lambda x, t: F.cross_entropy(x, t, reduction="none"), lambda: [r(3, 5), torch.tensor([0, 4, 2])]),
    "cross_entropy smoothed": (lambda x, t: F.cross_entropy(x, t, label_smoothing=0.1),
                               lambda: [r(3, 5), torch.tensor([0, 4, 2])]),
    "cross_entropy 2d": (F.cross_entropy, lambda: [r(2, 5, 3, 4), torch.randint(0, 5, (2, 3, 4))]),
    "nll_loss": (F.nll_loss, lambda: [r(6, 5), torch.tensor([0, 4, 2, 2, -100, 1])]),
    "mse_loss": (F.mse_loss, lambda: [r(4, 3), r(4, 3)]),
    "mse_loss sum": (lambda x, y: F.mse_loss(x, y, reduction="sum"), lambda: [r(4, 3), r(4, 3)]),
    "l1_loss": (F.l1_loss, lambda: [r(4, 3), r(4, 3)]),
    "smooth_l1_loss": (lambda x, y: F.smooth_l1_loss(x, y, beta=0.5), lambda: [r(8, 3), r(8, 3)]),
    "huber_loss": (lambda x, y: F.huber_loss(x, y, delta=0.7), lambda: [r(8, 3), r(8, 3)]),
    "bce": (lambda x, y: F.binary_cross_entropy(torch.sigmoid(x), y.detach().sigmoid()), lambda: [r(8, 3), r(8, 3)]),
    "bce logits": (lambda x, y: F.binary_cross_entropy_with_logits(x, y.detach().sigmoid()), lambda: [r(8, 3), r(8, 3)]),
    "kl_div": (lambda x, y: F.kl_div(F.log_softmax(x, 1), F.softmax(y, 1), reduction="batchmean"),
               lambda: [r(4, 5), r(4, 5)]),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (6,), w, b), lambda: [r(2, 3, 6), r(6), r(6)]),
    "layer_norm two axes": (lambda x: F.layer_norm(x, (3, 6)), lambda: [r(2, 3, 6)]),
    "group_norm": (lambda x, w, b: F.group_norm(x, 2, w, b), lambda: [r(3, 4, 5, 2), r(4), r(4)]),
    "batch_norm": (batch_norm, lambda: [r(4, 3, 5, 2), r(3), r(3), r(3), r(3)]),
    "batch_norm eval": (lambda x, w, b, m, v: F.batch_norm(x, m.detach(), v.detach().abs() + 0.5, w, b),
                        lambda: [r(4, 3, 5), r(3), r(3), r(3), r(3)]),
    "rms_norm": (lambda x, w: F.rms_norm(x, (6,), w, 1e-5), lambda: [r(2, 3, 6), r(6)]),
    "embedding": (lambda w, i: F.embedding(i, w), lambda: [r(7, 3), torch.tensor([[0, 5, 5], [6, 1, 0]])]),
    "embedding padded": (lambda w, i: F.embedding(i, w, padding_idx=5), lambda: [r(7, 3), torch.tensor([0, 5, 5, 6])]),
    "dropout": (lambda x: F.dropout(x, 0.3, training=True), lambda: [r(5, 8)]),
    "native_dropout": (lambda x: torch.native_dropout(x, 0.3, True)[0], lambda: [r(5, 8)]),
    "linear": (F.linear, lambda: [r(2, 3, 5), r(4, 5), r(4)]),
    "matmul": (torch.matmul, lambda: [r(2, 3, 5), r(2, 5, 4)]),
    "addmm": (lambda b, x, y: torch.addmm(b, x, y, beta=0.5, alpha=2.0), lambda: [r(4), r(3, 5), r(5, 4)]),
    "baddbmm": (lambda b, x, y: torch.baddbmm(b, x, y, beta=0.5, alpha=1.7), lambda: [r(2, 3, 4), r(2, 3, 5), r(2, 5, 4)]),
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, stride=2, padding=1), lambda: [r(2, 3, 11), r(4, 3, 3), r(4)]),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
               lambda: [r(2, 3, 10, 9), r(4, 3, 3, 3), r(4)]),
    "conv2d groups": (lambda x, w: F.conv2d(x, w, groups=2, padding=1), lambda: [r(2, 4, 6, 5), r(6, 2, 3, 3)]),
    "conv2d depthwise": (lambda x, w: F.conv2d(x, w, groups=4, stride=2), lambda: [r(2, 4, 7, 8), r(4, 1, 3, 3)]),
    "conv_transpose2d": (lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1),
                         lambda: [r(2, 3, 5, 4), r(3, 4, 3, 3), r(4)]),
    "conv_transpose2d groups": (lambda x, w: F.conv_transpose2d(x, w, groups=2, stride=2),
                                lambda: [r(2, 4, 5, 4), r(4, 3, 3, 3)]),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1), lambda: [r(2, 3, 8, 7)]),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1), lambda: [r(2, 3, 8, 7)]),
    "avg_pool2d uncounted": (lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
                             lambda: [r(2, 3, 8, 7)]),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (2, 3)), lambda: [r(2, 3, 8, 9)]),
    "adaptive_avg_pool2d one": (lambda x: F.adaptive_avg_pool2d(x, 1), lambda: [r(2, 3, 8, 9)]),
    "attention": (F.scaled_dot_product_attention, lambda: [r(2, 3, 5, 4), r(2, 3, 6, 4), r(2, 3, 6, 4)]),
    "attention causal": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3),
                         lambda: [r(2, 3, 5, 4), r(2, 3, 5, 4), r(2, 3, 5, 4)]),
    "attention masked": (lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m),
                         lambda: [r(2, 3, 5, 4), r(2, 3, 6, 4), r(2, 3, 6, 4), torch.arange(30).reshape(5, 6) % 7 > 1]),
    "attention float mask": (lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m.detach()),
                             lambda: [r(2, 3, 5, 4), r(2, 3, 6, 4), r(2, 3, 6, 4), r(5, 6)]),
    "attention groups": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
                         lambda: [r(2, 4, 5, 4), r(2, 2, 5, 4), r(2, 2, 5, 4)]),
    "index": (lambda x, i, j: x[i, j], lambda: [r(5, 6, 3), torch.tensor([0, 4, 4]), torch.tensor([[1], [5]])]),
    "index behind": (lambda x, i: x[:, i], lambda: [r(5, 6, 3), torch.tensor([0, 4, 4])]),
    "index two behind": (lambda x, i, j: x[:, i, j], lambda: [r(5, 6, 3), torch.tensor([0, 4, 4]), torch.tensor([[1], [2]])]),
    "index mask": (lambda x, m: x[m], lambda: [r(4, 3), torch.tensor([True, False, True, True])]),
    "index_put": (lambda x, y, i: x.index_put((i,), y), lambda: [r(5, 3), r(2, 3), torch.tensor([0, 4])]),
    "index_put mask": (lambda x, m: x.masked_fill(m, 2.0), lambda: [r(5, 3), r(5, 3) > 0]),
    "write to a mask": (lambda x, m: x.clone().index_put_((m,), torch.tensor(2.0)), lambda: [r(5, 3), r(5, 3) > 0]),
    "index_select": (lambda x, i: x.index_select(1, i), lambda: [r(5, 6), torch.tensor([0, 4, 4])]),
    "index_add": (lambda x, i, y: x.index_add(1, i, y, alpha=0.5), lambda: [r(5, 6), torch.tensor([0, 4, 4]), r(5, 3)]),
    "gather": (lambda x, i: x.gather(1, i), lambda: [r(3, 6), torch.tensor([[0, 4], [1, 1], [5, 2]])]),
    "scatter": (lambda x, i, y: x.scatter(1, i, y.detach()), lambda: [r(3, 6), torch.tensor([[0, 4], [1, 2], [5, 2]]), r(3, 3)]),
    "scatter_add": (lambda x, i, y: x.scatter_add(1, i, y), lambda: [r(3, 6), torch.tensor([[0, 4], [1, 1], [5, 2]]), r(3, 2)]),
    "select": (lambda x: x[:, -2], lambda: [r(3, 6, 2)]),
    "slice": (lambda x: x[:, 1:5], lambda: [r(3, 6, 2)]),
    "slice with steps": (lambda x: x[:, 1:6:2], lambda: [r(3, 7, 2)]),
    "cat": (lambda x, y: torch.cat([x, y], 1), lambda: [r(3, 6), r(3, 2)]),
    "stack": (lambda x, y: torch.stack([x, y], 1), lambda: [r(3, 6), r(3, 6)]),
    "split": (lambda x: torch.cat([p * i for i, p in enumerate(x.split([1, 3, 2], 1))], 1), lambda: [r(3, 6)]),
    "expand": (lambda x: x.expand(4, 3, 6) * torch.arange(4.0)[:, None, None], lambda: [r(3, 1).expand(3, 6)]),
    "broadcast": (lambda x, y: x * y / (y * y + 1), lambda: [r(3, 1, 5), r(4, 1)]),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 1), lambda: [r(3, 4)]),
    "permute": (lambda x: x.permute(2, 0, 1).reshape(4, -1), lambda: [r(3, 2, 4)]),
    "write to a view": (lambda x: (lambda y: (y[:, 1:3].mul_(2.0), y)[1])(x.clone()), lambda: [r(3, 6)]),
    "mean": (lambda x: x.mean((0, 2)), lambda: [r(3, 6, 2)]),
    "var": (lambda x: x.var(1), lambda: [r(3, 6, 2)]),
    "std": (lambda x: x.std(), lambda: [r(3, 6, 2)]),
    "var_mean": (lambda x: sum(torch.var_mean(x, 1, correction=0)), lambda: [r(3, 6, 2)]),
    "norm": (lambda x: torch.linalg.vector_norm(x, dim=1), lambda: [r(3, 6)]),
    "logsumexp": (lambda x: x.logsumexp(1), lambda: [r(3, 6)]),
    "amax": (lambda x: x.amax(1), lambda: [r(3, 6)]),
    "max": (lambda x: x.max(1).values, lambda: [r(3, 6)]),
    "cumsum": (lambda x: x.cumsum(1), lambda: [r(3, 6)]),
    "clamp": (lambda x: x.clamp(-0.5, 0.5), lambda: [r(3, 6)]),
    "where": (lambda x, y, m: torch.where(m, x, y), lambda: [r(3, 6), r(3, 6), r(3, 6) > 0]),
    "powers": (lambda x: x.abs().pow(1.5) + x**3 + x.exp() + x.sin() + x.cos(), lambda: [r(3, 6)]),
    "remainder": (lambda x: torch.remainder(x * 10, 0.7), lambda: [r(3, 6)]),
    "lerp": (lambda x, y: torch.lerp(x, y, 0.3), lambda: [r(3, 6), r(3, 6)]),
    "lerp far": (lambda x, y: torch.lerp(x, y, 0.8), lambda: [r(3, 6), r(3, 6)]),
    "addcmul": (lambda x, y, z: torch.addcmul(x, y, z, value=-0.3), lambda: [r(3, 6), r(3, 6), r(3, 6)]),
    "addcdiv": (lambda x, y, z: torch.addcdiv(x, y, z, value=-0.3), lambda: [r(3, 6), r(3, 6), r(3, 6)]),
    "triangles": (lambda x: x.tril() + x.triu(1), lambda: [r(5, 5)]),
    "flip and pad": (lambda x: F.pad(x.flip(1), (1, 2)), lambda: [r(3, 5)]),
}  # fmt: skip


# Without a way back: what is counted, ordered or rounded has none, and that of the others is not in the table.
FORWARD = {
    "half types and numbers": (lambda x, y: (x * 0.3 + 0.7) / 0.9 + (y - 0.1) * 1.7,
                               lambda: [r(40, 6, dtype=torch.float16), r(40, 6, dtype=torch.float16)]),
    "trigonometry": (lambda x: x.cosh() + x.sinh() + x.atan() + x.asinh() + (x.tanh() * 0.9).atanh() + (x.abs() + 1.1).acosh(),
                     lambda: [r(3, 6)]),
    "arcs": (lambda x: x.sin().acos() + x.sin().asin(), lambda: [r(3, 6)]),
    "atan2": (torch.atan2, lambda: [torch.tensor([1.0, -2.0, 3.0, -4.0, 0.0, 0.0, 2.0]),
                                    torch.tensor([2.0, -1.0, -0.5, 3.0, 0.0, -1.0, 0.0])]),
    "logarithms": (lambda x: torch.log2(x) + torch.log10(x) + torch.log1p(x), lambda: [r(3, 6).abs() + 0.01]),
    "exponentials": (lambda x: torch.expm1(x) + torch.exp2(x), lambda: [r(3, 6)]),
    "erfc": (torch.erfc, lambda: [r(3, 6)]),
    "rounding": (lambda x: (x * 3).trunc() + (x * 3).frac() + torch.fmod(x * 3, 0.7), lambda: [r(4, 6)]),
    "floor_divide": (lambda i, j, x: i // j + (-i) // j + torch.div(i, j, rounding_mode="trunc") + x.floor_divide(0.3),
                     lambda: [torch.arange(12), torch.tensor(5), r(12)]),
    "hypot": (torch.hypot, lambda: [r(5), r(5)]),
    "logaddexp": (torch.logaddexp, lambda: [r(5) * 40, r(5) * 40]),
    "cross": (lambda x, y: torch.linalg.cross(x, y, dim=1), lambda: [r(4, 3, 2), r(4, 3, 2)]),
    "logit": (lambda x: torch.logit(x.sigmoid(), eps=1e-3), lambda: [r(5)]),
    "nan_to_num": (lambda x: torch.nan_to_num(x, nan=0.5, posinf=3.0),
                   lambda: [torch.tensor([1.0, float("nan"), float("inf"), -2.0])]),
    "shrinks": (lambda x: F.hardshrink(x) + F.softshrink(x, 0.3) + F.threshold(x, 0.1, -2.0) + F.celu(x, 0.7), lambda: [borders()]),
    "angles": (lambda x: torch.deg2rad(x) + torch.rad2deg(x), lambda: [r(5)]),
    "infinite": (lambda x, y: torch.isposinf(y) * x + torch.isneginf(y) * x + torch.isfinite(y) * x,
                 lambda: [r(3), torch.tensor([1.0, float("inf"), -float("inf")])]),
    "roll": (lambda x: x.roll((1, -2), (0, 2)) + x.roll(5), lambda: [r(3, 4, 5)]),
    "diagonal": (lambda x: x.diagonal(1, 0, 2), lambda: [r(3, 4, 5)]),
    "diagonal below": (lambda x: x.diagonal(-1), lambda: [r(4, 5)]),
    "diag_embed": (lambda x: torch.diag_embed(x, 1), lambda: [r(2, 3)]),
    "diag_embed turned": (lambda x: torch.diag_embed(x, -1, 0, 2), lambda: [r(2, 3)]),
    "unfold": (lambda x: x.unfold(1, 3, 2), lambda: [r(2, 9, 4)]),
    "im2col": (lambda x: F.unfold(x, (2, 3), dilation=(2, 1), padding=1, stride=(1, 2)), lambda: [r(2, 3, 6, 7)]),
    "col2im": (lambda x: F.fold(x, (6, 7), (2, 3), dilation=(2, 1), padding=1, stride=(1, 2)), lambda: [r(2, 18, 24)]),
    "reflection_pad": (lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect"), lambda: [r(2, 3, 5, 6)]),
    "reflection_pad1d": (lambda x: F.pad(x, (2, 1), mode="reflect"), lambda: [r(2, 3, 5)]),
    "replication_pad": (lambda x: F.pad(x, (1, 2, 3, 0, 1, 1), mode="replicate"), lambda: [r(2, 3, 5, 6, 4)]),
    "circular pad": (lambda x: F.pad(x, (1, 2), mode="circular"), lambda: [r(2, 3, 5)]),
    "pixel_shuffle": (lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2) * 2, 3), lambda: [r(2, 4, 6, 9)]),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 3), lambda: [r(2, 6, 4, 3)]),
    "upsample nearest": (lambda x: F.interpolate(x, scale_factor=1.7), lambda: [r(2, 3, 5, 6)]),
    "upsample nearest size": (lambda x: F.interpolate(x, size=(7, 4)), lambda: [r(2, 3, 5, 6)]),
    "upsample nearest exact": (lambda x: F.interpolate(x, size=(7, 4), mode="nearest-exact"), lambda: [r(2, 3, 5, 6)]),
    "upsample nearest 1d": (lambda x: F.interpolate(x, scale_factor=2), lambda: [r(2, 3, 5)]),
    "upsample linear": (lambda x: F.interpolate(x, scale_factor=2.5, mode="linear"), lambda: [r(2, 3, 5)]),
    "upsample bilinear": (lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"), lambda: [r(2, 3, 5, 6)]),
    "upsample bilinear corners": (lambda x: F.interpolate(x, size=(9, 4), mode="bilinear", align_corners=True), lambda: [r(2, 3, 5, 6)]),
    "upsample bilinear smoothed": (lambda x: F.interpolate(x, size=(4, 5), mode="bilinear", antialias=True), lambda: [r(2, 3, 9, 11)]),
    "upsample bicubic": (lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), lambda: [r(2, 3, 5, 6)]),
    "upsample bicubic smoothed": (lambda x: F.interpolate(x, size=(4, 5), mode="bicubic", antialias=True), lambda: [r(2, 3, 9, 11)]),
    "upsample trilinear": (lambda x: F.interpolate(x, size=(3, 6, 5), mode="trilinear"), lambda: [r(1, 2, 4, 5, 3)]),
    "grid_sample": (lambda x, g: F.grid_sample(x, g.detach(), align_corners=False), lambda: [r(2, 3, 5, 6), r(2, 4, 3, 2)]),
    "grid_sample border": (lambda x, g: F.grid_sample(x, g, padding_mode="border", align_corners=True),
                           lambda: [r(2, 3, 5, 6), r(2, 4, 3, 2)]),
    "grid_sample reflected": (lambda x, g: F.grid_sample(x, g, "bicubic", "reflection", align_corners=False),
                              lambda: [r(2, 3, 5, 6), r(2, 4, 3, 2)]),
    "grid_sample nearest": (lambda x, g: F.grid_sample(x, g, "nearest", align_corners=False), lambda: [r(2, 3, 5, 6), r(2, 4, 3, 2)]),
    "topk": (lambda x: x.topk(3, 1).values + x.topk(3, 1, largest=False).indices, lambda: [r(4, 9)]),
    "sort": (lambda x: x.sort(0, descending=True).values + x.argsort(1), lambda: [r(4, 9)]),
    "sort equal": (lambda i, x: torch.sort(i, stable=True).indices + x, lambda: [torch.tensor([2, 1, 2, 1, 0]), r(5)]),
    "kthvalue": (lambda x: x.kthvalue(2, 1).values, lambda: [r(4, 9)]),
    "median": (lambda x: x.median(1).values + x.median(), lambda: [r(4, 8)]),
    "nonzero": (lambda i, x: i.nonzero().sum() + x, lambda: [torch.tensor([[0, 2], [1, 0]]), r(3)]),
    "masked_select": (lambda x, m: x.masked_select(m), lambda: [r(4, 3), torch.tensor([[True], [False], [True], [True]])]),
    "masked_scatter": (lambda x, m, y: x.masked_scatter(m, y), lambda: [r(2, 3), torch.tensor([True, False, True]), r(2, 3)]),
    "searchsorted": (lambda x, y: torch.searchsorted(x.sort(1).values, y) + torch.searchsorted(x.sort(1).values, y, right=True) + y,
                     lambda: [r(2, 6), r(2, 4)]),
    "bucketize": (lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 0.5])) + x, lambda: [r(2, 6)]),
    "histc": (lambda x: torch.histc(x, 5, -2, 2), lambda: [r(40)]),
    "bincount": (lambda i, x: torch.bincount(i, minlength=4) + x, lambda: [torch.tensor([0, 2, 2, 1]), r(4)]),
    "unique": (lambda i, x: torch.unique(i, return_inverse=True)[1] + x, lambda: [torch.tensor([3, 2, 3, 1]), r(4)]),
    "take": (lambda x, i: x.take(i), lambda: [r(3, 4), torch.tensor([[0, 11], [5, 5]])]),
    "scatter_reduce": (lambda x, i, y: x.scatter_reduce(0, i, y, "amax") + x.scatter_reduce(0, i, y, "mean", include_self=False),
                       lambda: [r(5), torch.tensor([0, 3, 3]), r(3)]),
    "scatter_reduce sum": (lambda x, i, y: x.scatter_reduce(0, i, y, "sum", include_self=False) + x.scatter_reduce(0, i, y, "prod"),
                           lambda: [r(5), torch.tensor([0, 3, 3]), r(3)]),
    "embedding_bag": (lambda w, i, o: F.embedding_bag(i, w, o, mode="sum"),
                      lambda: [r(7, 3), torch.tensor([0, 5, 5, 6, 1]), torch.tensor([0, 2])]),
    "embedding_bag mean": (lambda w, i, o: F.embedding_bag(i, w, o), lambda: [r(7, 3), torch.tensor([0, 5, 5, 6, 1]), torch.tensor([0, 2])]),
    "cumulative": (lambda x: x.cumprod(1) + x.logcumsumexp(1), lambda: [r(3, 6)]),
    "aminmax": (lambda x: sum(x.aminmax(dim=1)), lambda: [r(3, 6)]),
    "cdist": (lambda x, y: torch.cdist(x, y) + torch.cdist(x, y, p=1.0), lambda: [r(2, 3, 5), r(2, 4, 5)]),
    "cdist of many": (torch.cdist, lambda: [r(30, 5), r(40, 5)]),
    "pdist": (torch.pdist, lambda: [r(5, 3)]),
    "weight_norm": (lambda v, g: torch._weight_norm(v, g, 0), lambda: [r(4, 3, 2), r(4, 1, 1)]),
    "adaptive_avg_pool2d uneven": (lambda x: F.adaptive_avg_pool2d(x, (3, 4)), lambda: [r(2, 3, 8, 9)]),
    "adaptive_avg_pool2d of one image": (lambda x: F.adaptive_avg_pool2d(x, 2), lambda: [r(3, 8, 9)]),
    "adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x, (3, 4)), lambda: [r(2, 3, 8, 9)]),
    "adaptive_max_pool1d": (lambda x: F.adaptive_max_pool1d(x, 2), lambda: [r(2, 3, 8)]),
    "max_unpool2d": (lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), lambda: [r(2, 3, 8, 6)]),
    "addmv": (lambda b, x, y: torch.addmv(b, x, y, beta=0.5) + torch.addr(x, b, y)[:, 0], lambda: [r(3), r(3, 5), r(5)]),
    "addbmm": (lambda b, x, y: torch.addbmm(b, x, y, beta=0.5, alpha=2.0), lambda: [r(3, 4), r(2, 3, 5), r(2, 5, 4)]),
    "bilinear": (F.bilinear, lambda: [r(4, 3), r(4, 5), r(2, 3, 5), r(2)]),
    "sort whole numbers": (lambda i, x: i.sort().values + i.topk(2).indices.sum() + x, lambda: [torch.tensor([3, 1, 2]), r(3)]),
    "grouped_mm": (lambda x, w, o: torch._grouped_mm(x.bfloat16(), w.bfloat16(), o).float(),
                   lambda: [r(12, 16), r(3, 16, 8), torch.tensor([4, 4, 12], dtype=torch.int32)]),
    "lstm": (lambda x: torch.nn.LSTM(6, 5, 2, bidirectional=True, batch_first=True)(x)[0], lambda: [r(2, 7, 6)]),
    "lstm from a state": (lambda x, h, c: torch.cat([*torch.nn.LSTM(6, 5)(x, (h, c))[1]]), lambda: [r(7, 2, 6), r(1, 2, 5), r(1, 2, 5)]),
    "gru": (lambda x: torch.nn.GRU(6, 5, bidirectional=True)(x)[0], lambda: [r(7, 2, 6)]),
    "multi-head attention": (lambda x: torch.cat(torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()(x, x, x), -1),
                             lambda: [r(2, 5, 8)]),
    "encoder layer": (lambda x: torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()(x), lambda: [r(2, 5, 8)]),
    "encoder layer normed first": (lambda x, m: torch.nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=True)
                                   .eval()(x, src_key_padding_mask=m), lambda: [r(2, 5, 8), torch.arange(10).reshape(2, 5) % 5 > 3]),
}  # fmt: skip


def judged(report):
    opaque = [w.where for w in report.warnings if "does not know" in w.summary]
    assert not opaque, opaque
    assert report.verdict in ("identical", "equivalent"), str(report)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_is_pytorchs(tmp_path, name):
    torch.manual_seed(0)
    function, tensors = FORMULAS[name]
    judged(recorded(tmp_path / "trace", function, tensors()))


@pytest.mark.parametrize("name", FORWARD)
def test_a_formula_of_the_way_forward_is_pytorchs(tmp_path, name):
    torch.manual_seed(0)
    function, tensors = FORWARD[name]
    with torch.no_grad():
        judged(recorded(tmp_path / "trace", function, tensors(), train=False))


# Operators of ATen's core set of which no rule is wanted: what makes constants or draws at random is taken as recorded,
# a number read out of a tensor is no tensor, memory made larger is no number, and complex numbers are computed with by nobody here.
WITHOUT_RULE = {"arange", "empty", "empty_strided", "fill", "rand", "randn", "randperm", "_local_scalar_dense",
                "_fft_c2r", "_fft_r2c", "resize_"}  # fmt: skip


def test_every_core_operator_of_aten_has_a_rule():
    import json
    import subprocess
    import sys

    listed = subprocess.run([sys.executable, "-m", "isotrace", "ops", "--json"], capture_output=True, text=True, check=True)
    known = {entry["op"] for entry in json.loads(listed.stdout) if entry["domain"] == "aten"}
    core = set()
    for full in torch._C._dispatch_get_all_op_names():
        domain, _, name = full.partition("::")
        name, _, overload = name.partition(".")
        # Sizes and strides are no tensors.
        if domain == "aten" and not name.startswith("sym_"):
            call = getattr(getattr(torch.ops.aten, name), overload or "default", None)
            if call is not None and torch.Tag.core in call.tags:
                core.add(name)
    assert len(core) > 100 and core - known == WITHOUT_RULE, sorted(core - known)


class Solver(torch.nn.Module):
    """A network around operators that isotrace does not know."""

    def __init__(self, epsilon=1e-5):
        super().__init__()
        self.before, self.norm = torch.nn.Linear(8, 8), torch.nn.LayerNorm(8, eps=epsilon)
        self.between, self.after = torch.nn.Linear(8, 8), torch.nn.Linear(8, 4)

    def forward(self, x):
        h = torch.tanh(self.norm(self.before(x)))
        inverse = torch.linalg.inv(h.transpose(1, 2) @ h + 0.5 * torch.eye(8))
        return self.after(torch.fft.rfft(self.between(inverse)).abs().repeat(1, 1, 2)[..., :8])


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """The network recorded as it is, on its own input."""
    torch.manual_seed(0)
    net, x, folder = Solver().eval(), torch.randn(2, 6, 8), tmp_path_factory.mktemp("solver") / "trace"
    with torch.no_grad(), isotrace.torch.record(net, folder):
        net(x)
    return net, x, folder


def test_what_nobody_knows_is_counted_and_accuses_no_one(solved, tmp_path):
    net, x, reference = solved
    # Another order of the same sums: every value behind the first product rounds otherwise.
    order = torch.randperm(8)
    turned = Solver().eval()
    turned.load_state_dict(net.state_dict())
    turned.before.weight.data = turned.before.weight.data[:, order]
    turned.forward = lambda x: Solver.forward(turned, x[..., order])
    with torch.no_grad(), isotrace.torch.record(turned, tmp_path / "turned"):
        turned(x)
    report = isotrace.diff(reference, tmp_path / "turned")
    assert report.verdict in ("identical", "equivalent"), str(report)
    assert any("linalg_inv" in place for w in report.warnings for place in w.where), str(report)


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_fault_beside_what_nobody_knows_is_one_fault(solved, tmp_path, place):
    net, x, reference = solved
    wrong = Solver(epsilon=0.3 if place == "before" else 1e-5).eval()
    wrong.load_state_dict(net.state_dict())
    if place == "after":
        wrong.after.bias.data += 0.25
    with torch.no_grad(), isotrace.torch.record(wrong, tmp_path / "wrong"):
        wrong(x)
    report = isotrace.diff(reference, tmp_path / "wrong")
    classes = [c.cause["class"] for c in report.culprits]
    assert classes == ["epsilon" if place == "before" else "bias"], str(report)
