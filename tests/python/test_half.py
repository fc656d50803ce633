"""PyTorch in half precision against float32, in networks that widen to float32 inside, as most language models do.

Root-mean-square norms, rotations and softmax are computed in float32 and narrowed again; the mask is the type's own
lowest number; weights are normalised when they are used; some weights are a handful of numbers.
"""

import copy
import math

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import isotrace  # noqa: E402
import isotrace.torch  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore")]
SHORT = {torch.float16: "f16", torch.bfloat16: "bf16"}


class Norm(nn.Module):
    def __init__(self, width, epsilon=1e-6):
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(1 + 0.2 * torch.randn(width)), epsilon

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return self.weight * wide.to(x.dtype)


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.size, self.scale = heads, width // heads, (width // heads) ** -0.5
        self.before, self.after = Norm(width), Norm(width)
        self.of_query, self.of_key = Norm(width // heads), Norm(width // heads)
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.output, self.up, self.down = nn.Linear(width, width), nn.Linear(width, 64), nn.Linear(64, width)
        self.activation = nn.GELU()

    def turn(self, x, angles):
        cos, sin = (t.to(x.dtype) for t in (angles.cos(), angles.sin()))
        left, right = x.chunk(2, -1)
        return x * cos + torch.cat([-right, left], -1) * sin

    def forward(self, x, angles):
        batch, length, width = x.shape
        normed = self.before(x)
        q, k, v = (f(normed).view(batch, length, self.heads, self.size) for f in (self.query, self.key, self.value))
        q, k = self.turn(self.of_query(q).transpose(1, 2), angles), self.turn(self.of_key(k).transpose(1, 2), angles)
        mask = torch.full((length, length), torch.finfo(x.dtype).min, dtype=x.dtype).triu(1)
        scores = q @ k.transpose(2, 3) * self.scale + mask
        y = torch.softmax(scores, -1, dtype=torch.float32).to(x.dtype) @ v.transpose(1, 2)
        x = x + self.output(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(self.activation(self.up(self.after(x))))


class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.blocks = nn.Embedding(50, 32), nn.ModuleList(Block(32, 4) for _ in range(2))
        self.norm = Norm(32)
        self.register_buffer("rates", 100.0 ** (-torch.arange(4) / 4))

    def forward(self, tokens):
        x = self.words(tokens)
        angles = torch.outer(torch.arange(tokens.shape[1]).float(), self.rates.float()).repeat(1, 2)
        for block in self.blocks:
            x = block(x, angles)
        return self.norm(x)


class Sound(nn.Module):
    """Weights that are normalised when they are used, of fewer channels than would be told by their numbers."""

    def __init__(self):
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.a, self.b = norm(nn.Conv1d(1, 4, 7, padding=3)), norm(nn.ConvTranspose1d(4, 3, 4, 2, 1))
        self.slope, self.both = nn.PReLU(3), nn.Bilinear(40, 40, 5)

    def forward(self, x):
        y = self.slope(self.b(F.elu(self.a(x))))
        return self.both(y[:, 0], y[:, 1]), y


def make(name):
    torch.manual_seed(3)
    if name == "language":
        model, inputs = Language(), (torch.randint(50, (2, 11)),)
    else:
        model, inputs = Sound(), (torch.randn(2, 1, 20),)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.8 / math.sqrt(weight[0].numel()))
    return model.eval(), inputs


def record(path, model, inputs):
    with torch.no_grad(), isotrace.torch.record(model, path):
        model(*inputs)
    return path


def against(tmp_path, name, dtype, change=None):
    """The network in float32, and in `dtype` with something changed, on inputs that both can hold."""
    model, inputs = make(name)
    half = copy.deepcopy(model)
    if change:
        change(half)
    narrow = tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)
    wide = tuple(x.float() if x.is_floating_point() else x for x in narrow)
    return isotrace.diff(record(tmp_path / "wide", model, wide), record(tmp_path / "half", half.to(dtype), narrow))


@pytest.mark.parametrize("dtype", SHORT, ids=SHORT.get)
@pytest.mark.parametrize("name", ["language", "sound"])
def test_what_a_half_network_widens_is_no_fault(tmp_path, name, dtype):
    report = against(tmp_path, name, dtype)
    assert report.verdict == "equivalent", str(report)
    assert f"in f32 (A) and {SHORT[dtype]} (B)" in report.reason
    assert not report.warnings, report.warnings
    assert all(p.budget.share <= 1 for p in report.pairs if p.budget)


@pytest.mark.parametrize("dtype", SHORT, ids=SHORT.get)
def test_autocast_computes_in_half_precision(tmp_path, dtype):
    model, inputs = make("language")
    wide = record(tmp_path / "wide", model, inputs)
    with torch.autocast("cpu", dtype):
        half = record(tmp_path / "half", model, inputs)
    report = isotrace.diff(wide, half)
    assert report.verdict == "equivalent", str(report)
    assert f"in f32 (A) and {SHORT[dtype]} (B)" in report.reason


def epsilon(model):
    model.blocks[1].after.epsilon = 1e-2


def scale(model):
    model.blocks[0].scale *= 1.1


def activation(model):
    model.blocks[0].activation.approximate = "tanh"


def weight(model):
    model.blocks[1].up.weight.data[:, 3] *= 1.05


def bias(model):
    model.blocks[0].down.bias.data.zero_()


def gain(model):
    model.blocks[0].of_key.weight.data.fill_(1)


FAULTS = {
    epsilon: ("epsilon", "blocks.1.after"),
    scale: ("scale", "blocks.0"),
    activation: ("activation", "blocks.0.activation"),
    weight: ("weight_value", "blocks.1.up"),
    bias: ("bias", "blocks.0.down"),
    gain: ("normalisation", "blocks.0.of_key"),
}


@pytest.mark.parametrize("dtype", SHORT, ids=SHORT.get)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_a_fault_in_half_precision_is_named(tmp_path, fault, dtype):
    report = against(tmp_path, "language", dtype, fault)
    assert report.verdict == "divergent", str(report)
    cause, place = FAULTS[fault]
    first = report.culprits[0]
    assert first.cause["class"] == cause, str(report)
    assert any(place in node for node in first.b.nodes), first.b.nodes
    assert len(report.culprits) == 1, str(report)


@pytest.mark.parametrize("dtype", SHORT, ids=SHORT.get)
def test_a_half_in_a_float_network_is_a_narrowing(tmp_path, dtype):
    model, inputs = make("language")

    class Narrow(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner.to(dtype)

        def forward(self, x):
            return self.inner(x.to(dtype)).float()

    narrow = copy.deepcopy(model)
    narrow.blocks[0].up = Narrow(narrow.blocks[0].up)
    report = isotrace.diff(record(tmp_path / "wide", model, inputs), record(tmp_path / "narrow", narrow, inputs))
    assert report.verdict == "divergent", str(report)
    assert {c.cause["class"] for c in report.culprits} == {"precision"}, str(report)
