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


def judged(report):
    opaque = [w.where for w in report.warnings if "does not know" in w.summary]
    assert not opaque, opaque
    assert report.verdict in ("identical", "equivalent"), str(report)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_is_pytorchs(tmp_path, name):
    torch.manual_seed(0)
    function, tensors = FORMULAS[name]
    judged(recorded(tmp_path / "trace", function, tensors()))
