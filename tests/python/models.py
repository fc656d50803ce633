"""Small networks in plain PyTorch with random weights, each with the settings in which implementations go wrong.

BERT, Llama (grouped heads, rotary positions), a vision transformer and a ResNet. Every setting's default is right;
`wrong` of `FAULTS` names the settings of one planted fault each and the causes that are right names for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    def __init__(self, width, heads, *, groups=None, bias=True, scale=None, fused=True, rotary=None, causal=False):
        super().__init__()
        self.heads, self.groups, self.size = heads, groups or heads, width // heads
        self.scale, self.fused, self.rotary, self.causal = scale or self.size**-0.5, fused, rotary, causal
        self.query = nn.Linear(width, heads * self.size, bias=bias)
        self.key = nn.Linear(width, self.groups * self.size, bias=bias)
        self.value = nn.Linear(width, self.groups * self.size, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)

    def forward(self, x, mask=None):
        batch, length, width = x.shape
        q = self.query(x).view(batch, length, self.heads, self.size).transpose(1, 2)
        k = self.key(x).view(batch, length, self.groups, self.size).transpose(1, 2)
        v = self.value(x).view(batch, length, self.groups, self.size).transpose(1, 2)
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        k = k.repeat_interleave(self.heads // self.groups, dim=1)
        v = v.repeat_interleave(self.heads // self.groups, dim=1)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal, scale=self.scale)
        else:
            scores = q @ k.transpose(-1, -2) * self.scale
            if self.causal:
                scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -math.inf)
            y = torch.softmax(scores if mask is None else scores + mask, -1) @ v
        return self.output(y.transpose(1, 2).reshape(batch, length, width))


class Rotary(nn.Module):
    """Rotary positions: pairs of the two halves, or `interleaved` neighbours."""

    def __init__(self, size, length, *, base=10000.0, interleaved=False):
        super().__init__()
        angles = torch.outer(torch.arange(length).float(), base ** (-torch.arange(0, size, 2).float() / size))
        self.interleaved = interleaved
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x):
        length = x.shape[2]
        if self.interleaved:
            cos, sin = (t[:length].repeat_interleave(2, -1) for t in (self.cos, self.sin))
            turned = torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)
        else:
            cos, sin = (torch.cat((t[:length], t[:length]), -1) for t in (self.cos, self.sin))
            turned = torch.cat((-x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]), -1)
        return x * cos + turned * sin


class BertLayer(nn.Module):
    def __init__(self, width, heads, inner, *, eps, gelu, bias, **attention):
        super().__init__()
        self.attention = Attention(width, heads, **attention)
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.up = nn.Linear(width, inner, bias=bias)
        self.act = nn.GELU(approximate=gelu)
        self.down = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x, mask):
        x = self.attention_norm(x + self.attention(x, mask))
        return self.norm(x + self.down(self.act(self.up(x))))


class Bert(nn.Module):
    """BERT with its pooler. `masks`: whether padding is masked at all."""

    def __init__(self, *, width=32, heads=4, layers=2, inner=64, vocabulary=50, positions=16, eps=1e-12, gelu="none",
                 bias=True, masks=True, pooler=True, **attention):  # fmt: skip
        super().__init__()
        self.masks = masks
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(positions, width)
        self.types = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.layers = nn.ModuleList(
            BertLayer(width, heads, inner, eps=eps, gelu=gelu, bias=bias, **attention) for _ in range(layers)
        )
        self.pooler = nn.Linear(width, width) if pooler else None

    def forward(self, input_ids, attention_mask):
        places = torch.arange(input_ids.shape[1])
        x = self.words(input_ids) + self.positions(places) + self.types(torch.zeros_like(input_ids))
        x = self.norm(x)
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -1e4 if self.masks else None
        for layer in self.layers:
            x = layer(x, mask)
        return {"hidden": x, "pooled": torch.tanh(self.pooler(x[:, 0]))} if self.pooler else {"hidden": x}


class RmsNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * y.to(x.dtype)


class LlamaLayer(nn.Module):
    def __init__(self, width, heads, groups, inner, rotary, *, eps, **attention):
        super().__init__()
        self.attention_norm = RmsNorm(width, eps)
        self.attention = Attention(width, heads, groups=groups, bias=False, rotary=rotary, **attention)
        self.norm = RmsNorm(width, eps)
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        y = self.norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    def __init__(self, *, width=32, heads=4, groups=2, layers=2, inner=48, vocabulary=50, eps=1e-5, causal=True,
                 interleaved=False, **attention):  # fmt: skip
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        rotary = Rotary(width // heads, 16, interleaved=interleaved)
        self.layers = nn.ModuleList(
            LlamaLayer(width, heads, groups, inner, rotary, eps=eps, causal=causal, **attention) for _ in range(layers)
        )
        self.norm = RmsNorm(width, eps)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, input_ids):
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)
        return {"logits": self.head(self.norm(x))}


class VitLayer(nn.Module):
    def __init__(self, width, heads, inner, *, eps, gelu, bias, **attention):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(width, heads, **attention)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.up = nn.Linear(width, inner)
        self.act = nn.GELU(approximate=gelu)
        self.down = nn.Linear(inner, width, bias=bias)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.down(self.act(self.up(self.norm(x))))


class Vit(nn.Module):
    def __init__(self, *, width=32, heads=4, layers=2, inner=64, side=16, patch=4, eps=1e-6, gelu="none", bias=True, **attention):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, (side // patch) ** 2 + 1, width))
        self.layers = nn.ModuleList(
            VitLayer(width, heads, inner, eps=eps, gelu=gelu, bias=bias, **attention) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width, eps=eps)
        self.head = nn.Linear(width, 10)

    def forward(self, pixels):
        x = self.patches(pixels).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.positions
        for layer in self.layers:
            x = layer(x)
        return {"logits": self.head(self.norm(x)[:, 0])}


class ResidualBlock(nn.Module):
    def __init__(self, given, width, stride, *, eps):
        super().__init__()
        self.conv1 = nn.Conv2d(given, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, eps=eps)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, eps=eps)
        self.down = None
        if stride != 1 or given != width:
            self.down = nn.Sequential(nn.Conv2d(given, width, 1, stride, bias=False), nn.BatchNorm2d(width, eps=eps))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.down is None else self.down(x)))


class ResNet(nn.Module):
    def __init__(self, *, widths=(8, 16), eps=1e-5, bias=True):
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 7, 2, 3, bias=False)
        self.bn = nn.BatchNorm2d(widths[0], eps=eps)
        self.pool = nn.MaxPool2d(3, 2, 1)
        given, blocks = widths[0], []
        for i, width in enumerate(widths):
            blocks += [ResidualBlock(given, width, 1 if i == 0 else 2, eps=eps), ResidualBlock(width, width, 1, eps=eps)]
            given = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(given, 10, bias=bias)

    def forward(self, pixels):
        x = self.blocks(self.pool(F.relu(self.bn(self.stem(pixels)))))
        return {"logits": self.head(x.mean((2, 3)))}


CLASSES = {"bert": Bert, "llama": Llama, "vit": Vit, "resnet": ResNet}


def make(name: str, *, size: dict[str, Any] | None = None, **settings: Any) -> nn.Module:
    """A network in inference; of one size, it has the same random weights whatever its settings are."""
    size = size or {}
    model, right = CLASSES[name](**size, **settings).eval(), CLASSES[name](**size).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for key, t in sorted(right.state_dict().items()):
            if not t.is_floating_point():
                continue
            if "running_var" in key:
                t.uniform_(0.5, 2.0)
            elif t.dim() > 1:
                t.normal_(0.0, t[0].numel() ** -0.5)
            elif key.endswith("weight"):
                t.normal_(1.0, 0.1)
            else:
                t.normal_(0.0, 0.1)
    unknown = model.load_state_dict(right.state_dict(), strict=False).missing_keys
    assert not unknown, unknown
    return model


def sharpen(model: nn.Module) -> None:
    """Makes attention attend to few: rounding grows where it decides to which."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(("query.weight", "key.weight")):
                p.mul_(4.0)


def inputs(name: str) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    if name in ("vit", "resnet"):
        side = 16 if name == "vit" else 32
        return {"pixels": torch.randn(2, 3, side, side, generator=g)}
    ids = {"input_ids": torch.randint(0, 50, (2, 11), generator=g)}
    if name == "bert":
        ids["attention_mask"] = torch.ones(2, 11, dtype=torch.int64)
        ids["attention_mask"][1, 7:] = 0
    return ids


@dataclass(frozen=True)
class Fault:
    """`settings` that make `network` wrong; any of `causes` names it, and the first culprit is inside `module`."""

    network: str
    name: str
    settings: dict[str, Any]
    causes: tuple[str, ...]
    module: str = field(default="")


FAULTS = [
    Fault("bert", "scale", {"scale": 0.25}, ("scale",), "attention"),
    Fault("bert", "tanh", {"gelu": "tanh"}, ("activation",), "act"),
    Fault("bert", "mask", {"masks": False}, ("mask",), "attention"),
    Fault("bert", "epsilon", {"eps": 1e-5}, ("epsilon",), "norm"),
    Fault("bert", "bias", {"bias": False}, ("bias",), "up"),
    Fault("llama", "scale", {"scale": 0.25}, ("scale",), "attention"),
    Fault("llama", "mask", {"causal": False}, ("mask",), "attention"),
    Fault("llama", "rotary", {"interleaved": True}, ("rope",), "attention"),
    Fault("llama", "epsilon", {"eps": 1e-6}, ("epsilon",), "attention_norm"),
    Fault("vit", "scale", {"scale": 0.25}, ("scale",), "attention"),
    Fault("vit", "tanh", {"gelu": "tanh"}, ("activation",), "act"),
    Fault("vit", "epsilon", {"eps": 1e-5}, ("epsilon",), "attention_norm"),
    Fault("vit", "bias", {"bias": False}, ("bias",), "down"),
    Fault("resnet", "epsilon", {"eps": 1e-3}, ("epsilon",), "bn"),
    Fault("resnet", "bias", {"bias": False}, ("bias",), "head"),
]
