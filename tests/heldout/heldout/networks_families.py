"""Small networks of the fourth set, of families that no other set has; same contract as networks_text."""
import math

import torch
from torch import nn
from torch.nn import functional as F

from .networks_fields import _normal
from .networks_models import _causal
from .networks_signal import _image
from .networks_text import Wrapped, _ids, _padding_mask


def roformer(rng):
    """An encoder whose queries and keys are turned in neighbouring pairs."""
    from transformers import RoFormerConfig, RoFormerModel
    config = RoFormerConfig(vocab_size=140, embedding_size=48, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=80, max_position_embeddings=32)
    return Wrapped(RoFormerModel(config), ["input_ids", "attention_mask"], ["last_hidden_state"]), {"ids": _ids(rng, 140, (2, 17)), "mask": _padding_mask(2, 17, 4)}


def opt(rng):
    """Learned positions counted from the mask, two rows late; ReLU between the layers."""
    return _causal("OPT", ["last_hidden_state"], model="Model", rng=rng, length=15, padded=4, ffn_dim=88, word_embed_proj_dim=48, max_position_embeddings=40)


def modernbert(rng):
    """Windows both ways and attention to all in turn, gated layers without biases."""
    from transformers import ModernBertConfig, ModernBertModel
    config = ModernBertConfig(vocab_size=140, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=72, max_position_embeddings=48, local_attention=6, global_attn_every_n_layers=3,
                              pad_token_id=0, attn_implementation="eager", reference_compile=False)
    return Wrapped(ModernBertModel(config), ["input_ids", "attention_mask"], ["last_hidden_state"]), {"ids": _ids(rng, 140, (2, 19)), "mask": _padding_mask(2, 19, 5)}


def qwen3(rng):
    """Queries and keys normed for each head."""
    return _causal("Qwen3", ["logits"], rng=rng, num_key_value_heads=2, head_dim=16, padded=3)


def phi3(rng):
    """Packed projections, gate and up in one, part of each head turned, a window."""
    return _causal("Phi3", ["logits"], rng=rng, num_key_value_heads=2, sliding_window=7, partial_rotary_factor=0.5, rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5})


def mpt(rng):
    """Slopes for each head in place of positions, no shift in any norm."""
    from transformers import MptConfig, MptModel
    config = MptConfig(vocab_size=140, d_model=48, n_layers=2, n_heads=4, expansion_ratio=2, max_seq_len=32, use_cache=False)
    return Wrapped(MptModel(config), ["input_ids", "attention_mask"], ["last_hidden_state"]), {"ids": _ids(rng, 140, (2, 16)), "mask": _padding_mask(2, 16, 4)}


def regnet(rng):
    """Grouped convolutions with squeeze and excitation."""
    from transformers import RegNetConfig, RegNetModel
    config = RegNetConfig(embedding_size=12, hidden_sizes=[16, 32], depths=[1, 2], groups_width=8, layer_type="y")
    return Wrapped(RegNetModel(config), ["pixel_values"], ["last_hidden_state", "pooler_output"]), {"pixels": _image(rng)}


def mobilevit(rng):
    """Patches unfolded from a map, attended to place by place, folded back."""
    from transformers import MobileViTConfig, MobileViTModel
    config = MobileViTConfig(image_size=64, patch_size=2, hidden_sizes=[24, 32, 40], neck_hidden_sizes=[8, 12, 16, 20, 24, 28, 48], num_attention_heads=4, expand_ratio=2.0, mlp_ratio=2.0)
    return Wrapped(MobileViTModel(config), ["pixel_values"], ["last_hidden_state", "pooler_output"]), {"pixels": _image(rng, size=64)}


class Tower(nn.Module):
    """A picture of patches in rows and columns: half of each head is turned by the row, half by the column; four patches joined into one at the end."""

    def __init__(self, width=48, heads=3, side=6):
        super().__init__()
        self.patch, self.heads = nn.Conv2d(3, width, 4, 4, bias=False), heads
        self.norms = nn.ParameterList(nn.Parameter(torch.ones(width)) for _ in range(4))
        self.qkv, self.out = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(2)), nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.gate, self.up, self.down = (nn.ModuleList(nn.Linear(*s) for _ in range(2)) for s in ((width, 72), (width, 72), (72, width)))
        self.last, self.merge, self.join = nn.LayerNorm(width), nn.Linear(4 * width, 64), nn.Linear(64, 20)
        d = width // heads
        speed = 100.0 ** -(torch.arange(0, d // 2, 2) / (d // 2))
        rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        angle = torch.cat((rows.reshape(-1, 1) * speed, columns.reshape(-1, 1) * speed), -1)
        self.register_buffer("angle", torch.cat((angle, angle), -1))

    def norm(self, x, k):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.norms[k]

    @staticmethod
    def turned(x):
        a, b = x.chunk(2, -1)
        return torch.cat((-b, a), -1)

    def forward(self, picture, seen):
        x = self.patch(picture)
        b, w, side, _ = x.shape
        x = x.flatten(2).transpose(1, 2)
        cos, sin = self.angle.cos(), self.angle.sin()
        mask = (1.0 - seen[:, None, None, :]) * -1e9
        for k in range(2):
            q, v, u = self.qkv[k](self.norm(x, 2 * k)).view(b, -1, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
            q, v = q * cos + self.turned(q) * sin, v * cos + self.turned(v) * sin
            score = torch.softmax(q @ v.transpose(-1, -2) * (w // self.heads) ** -0.5 + mask, -1)
            x = x + self.out[k]((score @ u).transpose(1, 2).flatten(2))
            y = self.norm(x, 2 * k + 1)
            x = x + self.down[k](F.silu(self.gate[k](y)) * self.up[k](y))
        x = self.last(x).view(b, side // 2, 2, side // 2, 2, w).permute(0, 1, 3, 2, 4, 5).reshape(b, -1, 4 * w)
        return self.join(F.gelu(self.merge(x)))


def tower(rng):
    seen = torch.ones(2, 36)
    seen[1, 30:] = 0
    return Tower(), {"picture": _image(rng, size=24), "seen": seen}


class Separator(nn.Module):
    """Two voices from one sound: a learned transform, dilated blocks normed over everything, masks, the transform back with overlaps."""

    def __init__(self, width=24, hidden=32):
        super().__init__()
        self.encode, self.decode = nn.Conv1d(1, width, 8, 4, bias=False), nn.ConvTranspose1d(width, 1, 8, 4, bias=False)
        self.first, self.narrow, self.masks = nn.GroupNorm(1, width, eps=1e-3), nn.Conv1d(width, 20, 1), nn.Conv1d(20, 2 * width, 1)
        self.wide, self.deep, self.back, self.skip = (nn.ModuleList(m(k) for k in range(3)) for m in (
            lambda k: nn.Conv1d(20, hidden, 1), lambda k: nn.Conv1d(hidden, hidden, 3, padding=2 ** k, dilation=2 ** k, groups=hidden), lambda k: nn.Conv1d(hidden, 20, 1), lambda k: nn.Conv1d(hidden, 20, 1)))
        self.slope, self.gain, self.shift = nn.ModuleList(nn.PReLU() for _ in range(7)), nn.ParameterList(nn.Parameter(torch.ones(hidden, 1)) for _ in range(6)), nn.ParameterList(nn.Parameter(torch.zeros(hidden, 1)) for _ in range(6))

    def norm(self, x, k):
        mean = x.mean((1, 2), keepdim=True)
        return self.gain[k] * (x - mean) / ((x - mean).square().mean((1, 2), keepdim=True) + 1e-4).sqrt() + self.shift[k]

    def forward(self, sound):
        w = F.relu(self.encode(sound))
        x, total = self.narrow(self.first(w)), 0
        for k in range(3):
            y = self.norm(self.slope[2 * k](self.wide[k](x)), 2 * k)
            y = self.norm(self.slope[2 * k + 1](self.deep[k](y)), 2 * k + 1)
            x, total = x + self.back[k](y), total + self.skip[k](y)
        m = torch.sigmoid(self.masks(self.slope[6](total))).view(sound.shape[0], 2, w.shape[1], -1)
        each = (m * w[:, None]).flatten(0, 1)
        return self.decode(each).view(sound.shape[0], 2, -1)


def separator(rng):
    return Separator(), {"sound": (_normal(rng, 2, 1, 100).cumsum(-1) * 0.2)}


class Coupling(nn.Module):
    """Pictures to noise step by step: squares to channels, scaled, mixed by a square matrix, one half moved by what the other says; what is sure leaves early."""

    def __init__(self):
        super().__init__()
        self.logs, self.shift = nn.ParameterList(nn.Parameter(torch.zeros(1, c, 1, 1)) for c in (12, 12, 24)), nn.ParameterList(nn.Parameter(torch.zeros(1, c, 1, 1)) for c in (12, 12, 24))
        self.mix = nn.ParameterList(nn.Parameter(torch.zeros(c, c)) for c in (12, 12, 24))
        self.a, self.b, self.c = (nn.ModuleList(m(c) for c in (12, 12, 24)) for m in (lambda c: nn.Conv2d(c // 2, 16, 3, padding=1), lambda c: nn.Conv2d(16, 16, 1), lambda c: nn.Conv2d(16, c, 3, padding=1)))
        self.prior = nn.Conv2d(6, 12, 3, padding=1)

    @staticmethod
    def squeeze(x):
        b, c, h, w = x.shape
        return x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(b, 4 * c, h // 2, w // 2)

    def step(self, x, k):
        x = (x + self.shift[k]) * torch.exp(self.logs[k])
        x = F.conv2d(x, self.mix[k][..., None, None])
        a, b = x.chunk(2, 1)
        h = self.c[k](F.relu(self.b[k](F.relu(self.a[k](a)))))
        move, scale = h[:, 0::2], 0.6 * torch.tanh(h[:, 1::2])
        return torch.cat((a, (b + move) * torch.exp(scale)), 1), scale.sum((1, 2, 3))

    def forward(self, picture):
        total = 0
        x = self.squeeze(picture)
        for k in (0, 1):
            x, d = self.step(x, k)
            total = total + d + self.logs[k].sum() * x.shape[2] * x.shape[3]
        x, early = x.chunk(2, 1)
        mean, logs = torch.tanh(self.prior(x)).chunk(2, 1)
        total = total - 0.5 * ((early - mean).square() * torch.exp(-2 * logs) + 2 * logs + math.log(2 * math.pi)).sum((1, 2, 3))
        x, d = self.step(self.squeeze(x), 2)
        return x, total + d, torch.logsumexp(x.flatten(2), 1)


def coupling(rng):
    return Coupling(), {"picture": _image(rng, size=8)}


class Transducer(nn.Module):
    """Speech and what was written so far, each through cells, added for all pairs of places; the sum over all paths along one diagonal after another."""

    def __init__(self, width=24, words=14):
        super().__init__()
        self.down, self.hear, self.norm = nn.Conv1d(10, 20, 4, 2, 1), nn.LSTM(20, width, batch_first=True), nn.LayerNorm(width)
        self.embed, self.write = nn.Embedding(40, 16), nn.GRU(16, width, batch_first=True)
        self.a, self.b, self.out = nn.Linear(width, 28), nn.Linear(width, 28, bias=False), nn.Linear(28, words)

    def forward(self, frames, ids):
        x, _ = self.hear(F.relu(self.down(frames)).transpose(1, 2))
        y, last = self.write(self.embed(ids))
        joint = torch.tanh(self.a(self.norm(x))[:, :, None] + self.b(y)[:, None])
        p = torch.log_softmax(self.out(joint), -1)
        blank, emit = p[..., 0], p[:, :, :-1, 1]
        alpha = torch.cat((torch.zeros_like(emit[:, 0, :1]), emit[:, 0].cumsum(-1)), -1)
        for t in range(1, 3):
            stay, go = alpha + blank[:, t - 1], F.pad(alpha[:, :-1] + emit[:, t], (1, 0), value=-30.0)
            most = torch.maximum(stay, go)
            alpha = most + torch.log(torch.exp(stay - most) + torch.exp(go - most))
        return p, alpha, p.argmax(-1), last


def transducer(rng):
    return Transducer(), {"frames": _normal(rng, 2, 10, 14), "ids": _ids(rng, 40, (2, 5))}


class Masks(nn.Module):
    """Queries become pictures' masks: a pyramid of features, attention where the last mask was on, classes and masks per query joined to a map."""

    def __init__(self, width=24, queries=5):
        super().__init__()
        self.low, self.high, self.lateral, self.fine = nn.Conv2d(3, 12, 5, 4, 2), nn.Conv2d(12, width, 3, 2, 1), nn.Conv2d(12, width, 1), nn.Conv2d(width, width, 3, padding=1)
        self.norms2d = nn.ModuleList(nn.GroupNorm(4, width) for _ in range(2))
        self.queries, self.places, self.level = nn.Parameter(torch.zeros(queries, width)), nn.Embedding(queries, width), nn.Embedding(2, width)
        self.q, self.k, self.v, self.o = (nn.ModuleList(nn.Linear(width, width) for _ in range(2)) for _ in range(4))
        self.norms, self.up, self.down = nn.ModuleList(nn.LayerNorm(width) for _ in range(5)), nn.Linear(width, 40), nn.Linear(40, width)
        self.classes, self.first, self.second = nn.Linear(width, 6), nn.Linear(width, width), nn.Linear(width, width)

    def attend(self, x, memory, k, hidden=None):
        b, n, w = x.shape
        q, m, v = (f(t).view(b, -1, 4, w // 4).transpose(1, 2) for f, t in ((self.q[k], x), (self.k[k], memory), (self.v[k], memory)))
        score = q @ m.transpose(-1, -2) / math.sqrt(w // 4)
        if hidden is not None:
            score = score.masked_fill(hidden[:, None], -1e4)
        return self.o[k]((torch.softmax(score, -1) @ v).transpose(1, 2).flatten(2))

    def forward(self, picture):
        low = F.relu(self.low(picture))
        high = F.relu(self.norms2d[0](self.high(low)))
        fine = self.fine(F.relu(self.norms2d[1](self.lateral(low) + F.interpolate(high, scale_factor=2.0, mode="nearest"))))
        b, w, h, _ = high.shape
        place = (torch.arange(h).float() + 1.0)[:, None] * (6.0 / h) * 50.0 ** (-torch.arange(0, w // 2, 2).float() / (w // 2))
        place = torch.cat((place.sin(), place.cos()), -1)
        place = torch.cat((place[:, None].expand(-1, h, -1), place[None].expand(h, -1, -1)), -1).flatten(0, 1)
        memory = high.flatten(2).transpose(1, 2) + place + self.level.weight[0]
        x = self.queries.expand(b, -1, -1)
        e = self.second(F.relu(self.first(self.norms[0](x))))
        on = torch.einsum("bqc,bchw->bqhw", e, F.avg_pool2d(fine, 2)).flatten(2)
        hidden = on < on.mean(-1, keepdim=True)
        x = self.norms[1](x + self.attend(x + self.places.weight, memory, 0, hidden))
        x = self.norms[2](x + self.attend(x + self.places.weight, x, 1))
        x = self.norms[3](x + self.down(F.relu(self.up(x))))
        y = self.norms[4](x)
        kinds, e = self.classes(y), self.second(F.relu(self.first(y)))
        masks = torch.einsum("bqc,bchw->bqhw", e, fine) / math.sqrt(w)
        return kinds, masks, torch.einsum("bqk,bqhw->bkhw", torch.softmax(kinds, -1)[..., :-1], torch.sigmoid(masks))


def masks(rng):
    return Masks(), {"picture": _image(rng, size=32)}


class Classic(nn.Module):
    """Convolutions, responses normed across neighbouring channels, overlapping maxima, several widths side by side, two large layers at the end."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 7, 2, 3), nn.Conv2d(16, 24, 5, padding=2, groups=2)
        self.one, self.three, self.narrow, self.five, self.pooled = nn.Conv2d(24, 8, 1), nn.Conv2d(24, 8, 3, padding=1), nn.Conv2d(24, 6, 1), nn.Conv2d(6, 8, 5, padding=2), nn.Conv2d(24, 8, 1)
        self.norm, self.six, self.seven, self.eight = nn.BatchNorm2d(32, eps=1e-3), nn.Linear(32 * 9, 40), nn.Linear(40, 32), nn.Linear(32, 10)

    def forward(self, picture):
        x = F.max_pool2d(F.local_response_norm(F.relu(self.first(picture)), 5, alpha=0.5, k=2.0), 3, 2, 1)
        x = F.max_pool2d(F.relu(self.second(x)), 3, 2)
        x = F.relu(torch.cat((self.one(x), self.three(x), self.five(F.relu(self.narrow(x))), self.pooled(F.avg_pool2d(x, 3, 1, 1))), 1))
        x = self.norm(x).flatten(1)
        return torch.softmax(self.eight(torch.tanh(self.seven(F.relu(self.six(x))))), -1), x


def classic(rng):
    return Classic(), {"picture": _image(rng, size=28)}


class Matching(nn.Module):
    """Two sentences compared: each word with those of the other, what differs and what is alike joined, pooled where there are words; a low-rank crossing at the end."""

    def __init__(self, width=32):
        super().__init__()
        self.embed, self.read, self.project = nn.Embedding(130, width), nn.LSTM(width, width // 2, bidirectional=True, batch_first=True), nn.Linear(4 * width, width)
        self.gate, self.value, self.norm = nn.Linear(width, width), nn.Linear(width, width), nn.LayerNorm(width, eps=1e-3)
        self.into, self.back, self.shift = nn.ParameterList(nn.Parameter(torch.zeros(6 * width, 8)) for _ in range(2)), nn.ParameterList(nn.Parameter(torch.zeros(8, 6 * width)) for _ in range(2)), nn.ParameterList(
            nn.Parameter(torch.zeros(6 * width)) for _ in range(2))
        self.hidden, self.last = nn.Linear(6 * width, 30), nn.Linear(30, 3)

    def compare(self, x, y, mx, my):
        e = x @ y.transpose(1, 2) * 0.25
        to = torch.softmax(e + (1.0 - my)[:, None] * -1e9, -1) @ y
        m = F.relu(self.project(torch.cat((x, to, x - to, x * to), -1)))
        m = self.norm(torch.sigmoid(self.gate(m)) * self.value(m) + (1 - torch.sigmoid(self.gate(m))) * x)
        mean = (m * mx[..., None]).sum(1) / mx.sum(1, keepdim=True)
        most = m.masked_fill(mx[..., None] == 0, -1e4).amax(1)
        return mean, most

    def forward(self, left, right):
        mx, my = (left > 0).float(), (right > 0).float()
        x, y = self.read(self.embed(left))[0], self.read(self.embed(right))[0]
        a, b = self.compare(x, y, mx, my)
        c, d = self.compare(y, x, my, mx)
        z = torch.cat((a, b, c, d, (a - c).abs(), a * c), -1)
        start = z
        for k in range(2):
            z = start * (z @ self.into[k] @ self.back[k] + self.shift[k]) + z
        z = z / (z.norm(dim=-1, keepdim=True) + 1e-2)
        return torch.log_softmax(self.last(F.relu(self.hidden(z))), -1), z


def matching(rng):
    left, right = _ids(rng, 130, (2, 11)), _ids(rng, 130, (2, 11))
    left[1, 8:], right[0, 9:] = 0, 0
    return Matching(), {"left": left, "right": right}


BUILDERS = {f.__name__: f for f in (roformer, opt, modernbert, qwen3, phi3, mpt, regnet, mobilevit, tower, separator, coupling, transducer, masks, classic, matching)}
