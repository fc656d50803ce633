"""Layers with each other's weights, in attention that is written out operator by operator."""

import copy

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import isotrace  # noqa: E402
import isotrace.torch  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore")]


class Attention(nn.Module):
    """Scores of unit vectors, or of keys from fewer places than queries, or neither."""

    def __init__(self, kind, bias=True):
        super().__init__()
        self.kind, self.norm = kind, nn.LayerNorm(24)
        self.query, self.key, self.value = (nn.Linear(24, 24, bias=bias) for _ in range(3))
        self.fewer, self.after, self.output = nn.Linear(48, 24), nn.LayerNorm(24), nn.Linear(24, 24)

    def heads(self, x):
        return x.view(*x.shape[:2], 3, 8).transpose(1, 2)

    def forward(self, x):
        normed = self.norm(x)
        keys = self.after(self.fewer(normed.reshape(x.shape[0], -1, 48))) if self.kind == "fewer keys" else normed
        q, k, v = self.heads(self.query(normed)), self.heads(self.key(keys)), self.heads(self.value(keys))
        if self.kind == "unit vectors":
            q, k = F.normalize(q, dim=-1) * 5, F.normalize(k, dim=-1)
        y = torch.softmax(q @ k.transpose(2, 3) / 8**0.5, -1) @ v
        return x + self.output(y.transpose(1, 2).reshape(x.shape))


class Network(nn.Module):
    def __init__(self, kind, bias):
        super().__init__()
        self.first, self.second = Attention(kind, bias), Attention(kind, bias)

    def forward(self, x):
        return self.second(self.first(x))


def record(path, model, x):
    with torch.no_grad(), isotrace.torch.record(model, path):
        model(x)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["f32", "f16", "bf16"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("kind", ["plain", "unit vectors", "fewer keys"])
def test_query_and_key_that_changed_places(tmp_path, kind, bias, dtype):
    torch.manual_seed(2)
    model = Network(kind, bias).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=0.4)
        else:
            weight.data.add_(0.2 * torch.randn_like(weight))
    x = torch.randn(2, 10, 24).to(dtype)
    right = record(tmp_path / "right", model, x.float())
    assert isotrace.diff(right, record(tmp_path / "same", copy.deepcopy(model).to(dtype), x)).verdict in ("identical", "equivalent")
    wrong = copy.deepcopy(model).to(dtype)
    wrong.first.query, wrong.first.key = wrong.first.key, wrong.first.query
    report = isotrace.diff(right, record(tmp_path / "wrong", wrong, x))
    assert report.verdict == "divergent", str(report)
    assert {c.cause["class"] for c in report.culprits} == {"weight_swap"}, str(report)
    assert all(node.startswith("first/") or node.startswith("first.") for c in report.culprits for node in c.b.nodes)
    assert all(c.cause.counterfactual.after < c.cause.counterfactual.before / 100 for c in report.culprits), str(report)
