"""Small networks of the third set, of families that neither other set has; same contract as networks_text."""
import math

import torch
from torch import nn
from torch.nn import functional as F

from .networks_fields import _normal
from .networks_signal import _image
from .networks_text import _ids


def _sinusoid(places, width, base=10000.0):
    angle = places[..., None].float() * torch.exp(-math.log(base) / (width // 2) * torch.arange(width // 2))
    return torch.cat((torch.cos(angle), torch.sin(angle)), -1)


class Vocoder(nn.Module):
    """Mel bands to sound: transposed convolutions, periodic activations, the mean of several widths of kernel."""

    def __init__(self, bands=10):
        super().__init__()
        self.before, self.ups = nn.Conv1d(bands, 24, 7, 1, 3), nn.ModuleList((nn.ConvTranspose1d(24, 12, 8, 4, 2), nn.ConvTranspose1d(12, 8, 5, 2, 2, output_padding=1)))
        self.rate = nn.ParameterList(nn.Parameter(torch.zeros(1, c, 1)) for c in (12, 8))
        self.blocks = nn.ModuleList(nn.ModuleList(nn.Conv1d(c, c, k, 1, d * (k - 1) // 2, dilation=d) for k, d in ((3, 1), (5, 2), (7, 3))) for c in (12, 8))
        self.after = nn.Conv1d(8, 1, 7, 1, 3)

    def forward(self, mel):
        x = self.before(mel)
        for up, rate, block in zip(self.ups, self.rate, self.blocks):
            x = up(F.leaky_relu(x, 0.1))
            speed = torch.exp(rate)
            x = x + torch.sin(speed * x).square() / (speed + 1e-9)
            x = sum(conv(F.leaky_relu(x, 0.1)) + x for conv in block) / 3
        return torch.tanh(self.after(F.leaky_relu(x)))


def vocoder(rng):
    return Vocoder(), {"mel": _normal(rng, 2, 10, 9)}


class Edges(nn.Module):
    """Attention over the edges of a graph: a softmax over those that arrive, sums and means per node, a readout per graph."""

    def __init__(self, width=16, heads=2):
        super().__init__()
        self.embed, self.layers = nn.Linear(7, width), nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(2))
        self.of_source, self.of_target = (nn.ParameterList(nn.Parameter(torch.zeros(heads, width // heads)) for _ in range(2)) for _ in range(2))
        self.edge, self.skip, self.out, self.heads = nn.Linear(3, heads), nn.Linear(width, width), nn.Linear(2 * width, 5), heads

    def forward(self, x, edges, kinds, graph):
        source, target = edges[0], edges[1]
        x = F.elu(self.embed(x))
        n = x.shape[0]
        for layer, a, b in zip(self.layers, self.of_source, self.of_target):
            h = layer(x).view(n, self.heads, -1)
            score = (h * a).sum(-1)[source] + (h * b).sum(-1)[target] + self.edge(kinds)
            score = torch.exp(F.leaky_relu(score, 0.2))
            total = torch.zeros(n, self.heads).scatter_add(0, target[:, None].expand(-1, self.heads), score)
            share = score / (total[target] + 1e-16)
            sent = (share[..., None] * h[source]).flatten(1)
            got = torch.zeros(n, sent.shape[1]).scatter_add(0, target[:, None].expand_as(sent), sent)
            x = F.elu(got + self.skip(x))
        count = torch.zeros(2).scatter_add(0, graph, torch.ones(n))
        mean = torch.zeros(2, x.shape[1]).scatter_add(0, graph[:, None].expand_as(x), x) / count.clamp(min=1)[:, None]
        best = torch.full((2, x.shape[1]), -9.0).scatter_reduce(0, graph[:, None].expand_as(x), x, "amax")
        return torch.log_softmax(self.out(torch.cat((mean, best), 1)), -1), x


def edges(rng):
    n, e = 14, 40
    target = torch.cat((torch.arange(n), torch.from_numpy(rng.integers(0, n, e - n))))
    return Edges(), {"x": _normal(rng, n, 7), "edges": torch.stack((torch.from_numpy(rng.integers(0, n, e)), target)), "kinds": _normal(rng, e, 3),
                     "graph": torch.tensor([0] * 8 + [1] * 6)}


class Anchors(nn.Module):
    """A detection head: offsets from anchors decoded to boxes, overlaps of the best ones, scores lowered by the overlap."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 16, 3, 2, 1)), nn.GroupNorm(4, 16)
        self.lateral, self.top = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 3, 2, 1)
        self.classes, self.boxes = nn.Conv2d(16, 2 * 4, 3, 1, 1), nn.Conv2d(16, 2 * 4, 3, 1, 1)
        places = torch.cat([torch.stack((*torch.meshgrid((torch.arange(s) + 0.5) * t, (torch.arange(s) + 0.5) * t, indexing="xy"),), -1).reshape(-1, 1, 2).repeat(1, 2, 1).reshape(-1, 2)
                            for s, t in ((8, 4), (4, 8))])
        sizes = torch.cat([torch.tensor([[t * 2.0, t * 3.0], [t * 3.5, t * 2.2]]).repeat(s * s, 1) for s, t in ((8, 4), (4, 8))])
        self.register_buffer("anchors", torch.cat((places - sizes / 2, places + sizes / 2), 1))
        self.register_buffer("spread", torch.tensor([0.1, 0.1, 0.2, 0.2]))

    def forward(self, picture):
        x = F.relu(self.norm(self.stem(picture)))
        levels = [self.lateral(x), self.top(x)]
        score = torch.cat([self.classes(y).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4) for y in levels], 1)
        delta = torch.cat([self.boxes(y).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4) for y in levels], 1) * self.spread
        size = self.anchors[:, 2:] - self.anchors[:, :2]
        centre = self.anchors[:, :2] + 0.5 * size
        middle = centre + delta[..., :2] * size
        extent = torch.exp(torch.clamp(delta[..., 2:], max=4.135)) * size
        box = torch.clamp(torch.cat((middle - 0.5 * extent, middle + 0.5 * extent), -1), 0, 32)
        best, kind = torch.sigmoid(score).max(-1)
        best, which = best.topk(12, 1)
        box = box.gather(1, which[..., None].expand(-1, -1, 4))
        low, high = torch.maximum(box[:, :, None, :2], box[:, None, :, :2]), torch.minimum(box[:, :, None, 2:], box[:, None, :, 2:])
        area = (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])
        meet = (high - low).clamp(min=0).prod(-1)
        over = meet / (area[:, :, None] + area[:, None] - meet + 1e-6)
        over = over * torch.tril(torch.ones(12, 12), -1)
        return box, best * torch.exp(-over.square().amax(-1) / 0.5), kind.gather(1, which)


def anchors(rng):
    return Anchors(), {"picture": _image(rng)}


class Relative(nn.Module):
    """Speech in blocks of feed-forward, attention with shifted relative scores, gated convolution, feed-forward."""

    def __init__(self, width=24, heads=3):
        super().__init__()
        linear = lambda i, o: nn.Linear(i, o)
        self.sub, self.into = nn.Conv2d(1, 4, 3, 2), nn.Linear(4 * 9, width)
        self.up, self.down = (nn.ModuleList(linear(*s) for _ in range(2)) for s in ((width, 40), (40, width)))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.query, self.key, self.value, self.place, self.out = (linear(width, width) for _ in range(5))
        self.u, self.v = nn.Parameter(torch.zeros(heads, width // heads)), nn.Parameter(torch.zeros(heads, width // heads))
        self.wide, self.deep, self.batch, self.narrow = nn.Conv1d(width, 2 * width, 1), nn.Conv1d(width, width, 5, 1, 2, groups=width), nn.BatchNorm1d(width), nn.Conv1d(width, width, 1)
        self.words, self.heads = nn.Linear(width, 11), heads

    def shifted(self, x):
        b, h, t, p = x.shape
        x = F.pad(x, (1, 0)).view(b, h, p + 1, t)
        return x[:, :, 1:].reshape(b, h, t, p)[..., :t]

    def attend(self, x, lengths):
        b, t, w = x.shape
        split = lambda y: y.view(y.shape[0], -1, self.heads, w // self.heads).transpose(1, 2)
        q, k, v = split(self.query(x)).transpose(1, 2), split(self.key(x)), split(self.value(x))
        p = split(self.place(_sinusoid(torch.arange(t - 1, -t, -1), w)[None]))
        content = (q + self.u).transpose(1, 2) @ k.transpose(-1, -2)
        places = self.shifted((q + self.v).transpose(1, 2) @ p.transpose(-1, -2))
        hidden = torch.arange(t)[None] >= lengths[:, None]
        score = ((content + places) / math.sqrt(w // self.heads)).masked_fill(hidden[:, None, None], -1e4)
        return self.out((torch.softmax(score, -1).masked_fill(hidden[:, None, None], 0) @ v).transpose(1, 2).reshape(b, t, w))

    def forward(self, features, lengths):
        x = F.relu(self.sub(features[:, None])).transpose(1, 2).flatten(2)
        x = self.into(x) * math.sqrt(24)
        x = x + 0.5 * self.down[0](F.silu(self.up[0](self.norms[0](x))))
        x = x + self.attend(self.norms[1](x), lengths)
        y = F.glu(self.wide(self.norms[2](x).transpose(1, 2)), 1)
        x = x + self.narrow(F.silu(self.batch(self.deep(y)))).transpose(1, 2)
        x = self.norms[4](x + 0.5 * self.down[1](F.silu(self.up[1](self.norms[3](x)))))
        return torch.log_softmax(self.words(x), -1)


def relative(rng):
    return Relative(), {"features": _normal(rng, 2, 21, 20), "lengths": torch.tensor([10, 7])}


class Denoiser(nn.Module):
    """A step of diffusion: the time as sinusoids gives scales and shifts, the text is attended to, the way down joined on the way up."""

    def __init__(self, width=16):
        super().__init__()
        self.time, self.into, self.out = nn.Sequential(nn.Linear(width, 32), nn.SiLU(), nn.Linear(32, 32)), nn.Conv2d(4, width, 3, 1, 1), nn.Conv2d(width, 4, 3, 1, 1)
        self.norms, self.more = nn.ModuleList(nn.GroupNorm(4, c, eps=1e-6) for c in (16, 16, 16, 32)), nn.ModuleList(nn.Linear(32, 2 * c) for c in (16, 16))
        self.first, self.second = nn.ModuleList(nn.Conv2d(c, 16, 3, 1, 1) for c in (16, 32)), nn.ModuleList(nn.Conv2d(16, 16, 3, 1, 1) for _ in range(2))
        self.down, self.up, self.short = nn.Conv2d(16, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(32, 16, 1)
        self.query, self.key, self.value, self.back = nn.Linear(16, 16, bias=False), nn.Linear(12, 16, bias=False), nn.Linear(12, 16, bias=False), nn.Linear(16, 16)
        self.last = nn.GroupNorm(4, 16)

    def block(self, x, t, k):
        y = self.first[k](F.silu(self.norms[0 if k == 0 else 3](x)))
        scale, shift = self.more[k](F.silu(t))[..., None, None].chunk(2, 1)
        y = self.norms[1 + k](y) * (1 + scale) + shift
        return self.second[k](F.silu(y)) + (x if k == 0 else self.short(x))

    def forward(self, sample, times, text):
        t = self.time(_sinusoid(times, 16))
        x = skip = self.block(self.into(sample), t, 0)
        x = self.down(x)
        b, c, h, w = x.shape
        y = x.flatten(2).transpose(1, 2)
        q, k, v = (u.view(b, -1, 2, 8).transpose(1, 2) for u in (self.query(y), self.key(text), self.value(text)))
        y = y + self.back((torch.softmax(q @ k.transpose(-1, -2) * 8 ** -0.5, -1) @ v).transpose(1, 2).reshape(b, h * w, c))
        x = self.up(F.interpolate(y.transpose(1, 2).reshape(b, c, h, w), scale_factor=2.0, mode="nearest"))
        x = self.block(torch.cat((x, skip), 1), t, 1)
        noise = self.out(F.silu(self.last(x)))
        return noise, (sample - 0.6 * noise) / 0.8


def denoiser(rng):
    return Denoiser(), {"sample": _normal(rng, 2, 4, 8, 8), "times": torch.tensor([7, 431]), "text": _normal(rng, 2, 5, 12)}


class Transformer2d(nn.Module):
    """Patches of a noisy picture; six numbers a block from time and class shift, scale and gate; put together to a picture again."""

    def __init__(self, width=24):
        super().__init__()
        self.patch, self.time, self.kind = nn.Conv2d(4, width, 2, 2), nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width)), nn.Embedding(9, width)
        self.six, self.two = nn.ModuleList(nn.Linear(width, 6 * width) for _ in range(2)), nn.Linear(width, 2 * width)
        self.qkv, self.back, self.up, self.down = (nn.ModuleList(nn.Linear(i, o) for _ in range(2)) for i, o in ((width, 3 * width), (width, width), (width, 64), (64, width)))
        self.last, self.width = nn.Linear(width, 2 * 2 * 8), width
        rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
        self.register_buffer("places", torch.cat((_sinusoid(rows.flatten(), 12), _sinusoid(columns.flatten(), 12)), 1))

    def forward(self, sample, times, kinds):
        x = self.patch(sample).flatten(2).transpose(1, 2) + self.places
        c = F.silu(self.time(_sinusoid(times, 16)) + self.kind(kinds))
        norm = lambda y: F.layer_norm(y, (self.width,), eps=1e-6)
        for k in range(2):
            a, b, g, d, e, f = self.six[k](c)[:, None].chunk(6, -1)
            y = norm(x) * (1 + b) + a
            q, key, v = self.qkv[k](y).view(*y.shape[:2], 3, 3, 8).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, key, v).transpose(1, 2).flatten(2)
            x = x + g * self.back[k](y)
            y = norm(x) * (1 + e) + d
            x = x + f * self.down[k](F.gelu(self.up[k](y), approximate="tanh"))
        shift, scale = self.two(c)[:, None].chunk(2, -1)
        x = self.last(norm(x) * (1 + scale) + shift)
        x = x.view(-1, 4, 4, 2, 2, 8).permute(0, 5, 1, 3, 2, 4).reshape(-1, 8, 8, 8)
        noise, spread = x.chunk(2, 1)
        return noise, torch.exp(0.5 * torch.tanh(spread))


def dit(rng):
    return Transformer2d(), {"sample": _normal(rng, 2, 4, 8, 8), "times": torch.tensor([3, 612]), "kinds": torch.tensor([2, 7])}


class Chunked(nn.Module):
    """A state space of scalars in chunks: sums of decays inside a chunk as a matrix, states carried from chunk to chunk."""

    def __init__(self, width=20, heads=2, state=6, size=4):
        super().__init__()
        inner = 2 * width
        self.embed, self.into, self.conv = nn.Embedding(110, width), nn.Linear(width, 2 * inner + 2 * state + heads, bias=False), nn.Conv1d(inner + 2 * state, inner + 2 * state, 4, groups=inner + 2 * state, padding=3)
        self.rate, self.log, self.skip, self.gain = (nn.Parameter(torch.zeros(n)) for n in (heads, heads, heads, inner))
        self.out, self.sizes, self.heads, self.state, self.size = nn.Linear(inner, width, bias=False), (inner, inner + 2 * state, heads), heads, state, size

    @staticmethod
    def segments(x):
        t = x.shape[-1]
        sums = x.cumsum(-1)
        return (sums[..., :, None] - sums[..., None, :]).masked_fill(~torch.tril(torch.ones(t, t, dtype=torch.bool)), float("-inf"))

    def forward(self, ids):
        x = self.embed(ids)
        b, s, _ = x.shape
        z, y, step = self.into(x).split(self.sizes, -1)
        y = F.silu(self.conv(y.transpose(1, 2))[..., :s].transpose(1, 2))
        inner = self.sizes[0]
        y, left, right = y.split([inner, self.state, self.state], -1)
        step = F.softplus(step + self.rate)
        decay = (-torch.exp(self.log) * step).view(b, s // self.size, self.size, self.heads).permute(0, 3, 1, 2)
        y = y.view(b, s, self.heads, -1)
        v = (y * step[..., None]).view(b, s // self.size, self.size, self.heads, -1)
        left, right = (t.view(b, s // self.size, self.size, self.state) for t in (left, right))
        total = decay.cumsum(-1)
        inside = torch.einsum("bcln,bcsn,bhcls,bcshp->bclhp", right, left, torch.exp(self.segments(decay)), v)
        states = torch.einsum("bcln,bhcl,bclhp->bchpn", left, torch.exp(total[..., -1:] - total), v)
        h, before = torch.zeros_like(states[:, 0]), []
        for c in range(states.shape[1]):
            before.append(h)
            h = h * torch.exp(total[:, :, c, -1])[..., None, None] + states[:, c]
        across = torch.einsum("bcln,bchpn,bhcl->bclhp", right, torch.stack(before, 1), torch.exp(total))
        y = ((inside + across).reshape(b, s, self.heads, -1) + self.skip[:, None] * y).flatten(2)
        y = y * F.silu(z)
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-5) * (1 + self.gain)
        return self.out(y) @ self.embed.weight.T, h


def chunked(rng):
    return Chunked(), {"ids": _ids(rng, 110, (2, 12))}


class Switch(nn.Module):
    """Each token goes to one expert, as far as there is room; dispatched and combined by products with one-hot numbers."""

    def __init__(self, width=20, experts=4, room=5):
        super().__init__()
        self.embed, self.norm, self.router = nn.Embedding(120, width), nn.LayerNorm(width), nn.Linear(width, experts, bias=False)
        self.up, self.up_bias, self.down = nn.Parameter(torch.zeros(experts, width, 32)), nn.Parameter(torch.zeros(experts, 1, 32)), nn.Parameter(torch.zeros(experts, 32, width))
        self.attend, self.out, self.experts, self.room = nn.MultiheadAttention(width, 2, batch_first=True), nn.Linear(width, 9), experts, room

    def forward(self, ids):
        x = self.embed(ids)
        x = x + self.attend(x, x, x, need_weights=False)[0]
        flat = self.norm(x).flatten(0, 1)
        share = torch.softmax(self.router(flat), -1)
        gate, which = share.max(-1)
        chosen = F.one_hot(which, self.experts).to(flat.dtype)
        place = (chosen.cumsum(0) - 1) * chosen
        fits = chosen * (place < self.room).to(flat.dtype)
        slot = F.one_hot(place.sum(-1).clamp(max=self.room - 1).long(), self.room).to(flat.dtype)
        dispatch = fits[..., None] * slot[:, None]
        sent = torch.einsum("tec,td->ecd", dispatch, flat)
        done = torch.relu(sent @ self.up + self.up_bias) @ self.down
        y = torch.einsum("tec,ecd->td", dispatch * gate[:, None, None], done).view_as(x)
        balance = self.experts * (share.mean(0) * chosen.mean(0)).sum()
        return self.out(x + y), balance


def switch(rng):
    return Switch(), {"ids": _ids(rng, 120, (2, 8))}


class Quantised(nn.Module):
    """A small picture network whose weights and activations lie on grids, as quantisation-aware training leaves it."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third, self.last = nn.Conv2d(3, 12, 3, 2, 1), nn.Conv2d(12, 12, 3, 1, 1, groups=12), nn.Conv2d(12, 16, 1), nn.Linear(16, 7)

    @staticmethod
    def grid(x, step, zero):
        return torch.fake_quantize_per_tensor_affine(x, step, zero, 0, 255)

    @staticmethod
    def rows(w, steps):
        return torch.fake_quantize_per_channel_affine(w, steps, torch.zeros(steps.shape[0], dtype=torch.int32), 0, -128, 127)

    def forward(self, picture):
        x = self.grid(picture, 0.031, 121)
        for k, (layer, step) in enumerate(((self.first, 0.024), (self.second, 0.019), (self.third, 0.027))):
            steps = torch.linspace(0.006, 0.014, layer.weight.shape[0])
            y = F.conv2d(x, self.rows(layer.weight, steps), layer.bias, layer.stride, layer.padding, 1, layer.groups)
            x = self.grid(F.relu(y) if k < 2 else F.relu(y) + x.mean((1, 2, 3), keepdim=True), step, 3)
        x = self.grid(x.mean((2, 3)), 0.015, 5)
        return F.linear(x, torch.fake_quantize_per_tensor_affine(self.last.weight, 0.011, 0, -128, 127), self.last.bias)


def quantised(rng):
    return Quantised(), {"picture": _image(rng, size=16)}


class Bags(nn.Module):
    """What somebody did before is pooled by how well it fits what is on offer; bags of tags as sums and means, a factorised interaction."""

    def __init__(self, width=12):
        super().__init__()
        self.items, self.tags, self.people = nn.Embedding(160, width), nn.Embedding(50, width), nn.Embedding(60, width)
        self.fit, self.slope = nn.Sequential(nn.Linear(4 * width, 20), nn.Sigmoid(), nn.Linear(20, 1)), nn.Parameter(torch.full((32,), 0.2))
        self.deep, self.norm, self.last = nn.Linear(4 * width, 32), nn.BatchNorm1d(32), nn.Linear(32, 2)
        self.crossed = nn.ParameterList(nn.Parameter(torch.zeros(4 * width)) for _ in range(2))
        self.shift = nn.ParameterList(nn.Parameter(torch.zeros(4 * width)) for _ in range(2))

    def forward(self, people, offer, past, lengths, tags, weights):
        o, p = self.items(offer), self.items(past)
        wide = o[:, None].expand_as(p)
        score = self.fit(torch.cat((wide, p, wide - p, wide * p), -1)).squeeze(-1)
        seen = torch.arange(past.shape[1])[None] < lengths[:, None]
        pooled = ((score * seen.to(score.dtype))[..., None] * p).sum(1)
        t = self.tags(tags)
        known = (tags != 0).to(t.dtype)
        mean = (t * (known * weights)[..., None]).sum(1) / known.sum(1, keepdim=True).clamp(min=1)
        x = first = torch.cat((self.people(people), o, pooled, mean), -1)
        for w, b in zip(self.crossed, self.shift):
            x = first * (x * w).sum(-1, keepdim=True) + b + x
        gate = torch.sigmoid(self.norm(self.deep(x)))
        h = self.deep(x)
        h = gate * h + (1 - gate) * self.slope * h
        return torch.sigmoid(self.last(h)), score


def bags(rng):
    import numpy as np
    tags = torch.from_numpy(rng.integers(1, 50, (6, 5)))
    tags[::2, 3:] = 0
    return Bags(), {"people": _ids(rng, 60, (6,)), "offer": _ids(rng, 160, (6,)), "past": _ids(rng, 160, (6, 7)), "lengths": torch.tensor([7, 5, 3, 6, 7, 2]), "tags": tags,
                    "weights": torch.from_numpy(rng.random((6, 5)).astype(np.float32)) + 0.3}


class Cached(nn.Module):
    """One step of a decoder: keys and values of what came before are inputs, a source is attended to, learned places counted on."""

    def __init__(self, width=24, heads=3):
        super().__init__()
        self.embed, self.places, self.heads = nn.Embedding(130, width), nn.Embedding(40, width), heads
        make = lambda i=width, o=width: nn.ModuleList(nn.Linear(i, o) for _ in range(2))
        self.q, self.k, self.v, self.o, self.cq, self.co, self.up, self.down = make(), make(), make(), make(), make(), make(), make(width, 48), make(48, width)
        self.ck, self.cv = make(16, width), make(16, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(7))

    def heads_of(self, x):
        return x.view(x.shape[0], -1, self.heads, x.shape[-1] // self.heads).transpose(1, 2)

    def attend(self, q, k, v, mask):
        score = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        y = torch.softmax(score + mask, -1) @ v
        return y.transpose(1, 2).flatten(2)

    def forward(self, ids, source, source_mask, past_keys, past_values):
        b, t = ids.shape
        before = past_keys.shape[3]
        x = self.embed(ids) + self.places(torch.arange(before, before + t))
        causal = torch.triu(torch.full((t, before + t), -1e9), before + 1)
        hidden = (1.0 - source_mask.to(x.dtype))[:, None, None] * -1e9
        keys, values = [], []
        for n in range(2):
            y = self.norms[3 * n](x)
            k = torch.cat((past_keys[n], self.heads_of(self.k[n](y))), 2)
            v = torch.cat((past_values[n], self.heads_of(self.v[n](y))), 2)
            keys.append(k)
            values.append(v)
            x = x + self.o[n](self.attend(self.heads_of(self.q[n](y)), k, v, causal))
            y = self.norms[3 * n + 1](x)
            x = x + self.co[n](self.attend(self.heads_of(self.cq[n](y)), self.heads_of(self.ck[n](source)), self.heads_of(self.cv[n](source)), hidden))
            x = x + self.down[n](F.relu(self.up[n](self.norms[3 * n + 2](x))))
        return self.norms[6](x) @ self.embed.weight.T, torch.stack(keys), torch.stack(values)


def cached(rng):
    mask = torch.ones(2, 6, dtype=torch.int64)
    mask[1, 4:] = 0
    return Cached(), {"ids": _ids(rng, 130, (2, 4)), "source": _normal(rng, 2, 6, 16), "source_mask": mask, "past_keys": _normal(rng, 2, 2, 3, 5, 8), "past_values": _normal(rng, 2, 2, 3, 5, 8)}


class Dilated(nn.Module):
    """Segmentation: the same picture at several dilations and as a whole, joined with early features, refined by points of a field."""

    def __init__(self):
        super().__init__()
        self.stem, self.early = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU()), nn.Conv2d(12, 6, 1)
        self.deep, self.wide = nn.Conv2d(12, 12, 3, 2, 1, groups=12), nn.Conv2d(12, 16, 1)
        self.rates = nn.ModuleList(nn.Conv2d(16, 8, 3, 1, r, dilation=r) for r in (1, 2, 3))
        self.whole, self.join, self.norm = nn.Conv2d(16, 8, 1), nn.Conv2d(32, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.refine, self.last = nn.Conv2d(18, 12, 3, 1, 1), nn.Conv2d(12, 5, 1)

    def forward(self, picture):
        low = self.stem(picture)
        x = F.relu6(self.wide(F.relu6(self.deep(low))))
        whole = F.interpolate(F.relu(self.whole(x.mean((2, 3), keepdim=True))), x.shape[2:], mode="bilinear", align_corners=False)
        x = F.relu(self.norm(self.join(torch.cat((*(F.relu(r(x)) for r in self.rates), whole), 1))))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
        x = self.last(F.relu(self.refine(torch.cat((x, self.early(low)), 1))))
        share = torch.softmax(x, 1)
        top = share.topk(2, 1)[0]
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False), top[:, 0] - top[:, 1]


def dilated(rng):
    return Dilated(), {"picture": _image(rng)}


class Rwkv(nn.Module):
    """Tokens mixed with the one before, a weighted mean over the past with a decay for each channel, kept from overflowing by its maximum."""

    def __init__(self, width=20):
        super().__init__()
        self.embed, self.norms = nn.Embedding(110, width), nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.mix, self.decay, self.first = nn.Parameter(torch.zeros(5, width)), nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.key, self.value, self.receive, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.gate, self.down, self.head = nn.Linear(width, 48, bias=False), nn.Linear(width, width, bias=False), nn.Linear(48, width, bias=False), nn.Linear(width, 110, bias=False)

    def time(self, x):
        before = F.pad(x, (0, 0, 1, -1))
        mix = torch.sigmoid(self.mix)
        k, v, r = (f(x * m + before * (1 - m)) for f, m in zip((self.key, self.value, self.receive), mix))
        rate, out = -torch.exp(self.decay), []
        top, bottom, most = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0]), torch.full_like(k[:, 0], -1e30)
        for t in range(x.shape[1]):
            now = torch.maximum(most, self.first + k[:, t])
            a, b = torch.exp(most - now), torch.exp(self.first + k[:, t] - now)
            out.append((a * top + b * v[:, t]) / (a * bottom + b))
            now = torch.maximum(most + rate, k[:, t])
            a, b = torch.exp(most + rate - now), torch.exp(k[:, t] - now)
            top, bottom, most = a * top + b * v[:, t], a * bottom + b, now
        return self.out(torch.sigmoid(r) * torch.stack(out, 1))

    def forward(self, ids):
        x = self.norms[0](self.embed(ids))
        x = x + self.time(self.norms[1](x))
        y = self.norms[2](x)
        before, mix = F.pad(y, (0, 0, 1, -1)), torch.sigmoid(self.mix)
        k = torch.relu(self.up(y * mix[3] + before * (1 - mix[3]))).square()
        x = x + torch.sigmoid(self.gate(y * mix[4] + before * (1 - mix[4]))) * self.down(k)
        return self.head(self.norms[3](x))


def rwkv(rng):
    return Rwkv(), {"ids": _ids(rng, 110, (2, 6))}


class Deformable(nn.Module):
    """Queries look at a few learned places around their own on two levels of a picture; boxes refined from inverse sigmoids."""

    def __init__(self, width=16, heads=2, places=3):
        super().__init__()
        self.stem, self.small = nn.Conv2d(3, width, 4, 4), nn.Conv2d(width, width, 3, 2, 1)
        self.norm, self.value, self.out = nn.GroupNorm(4, width), nn.Linear(width, width), nn.Linear(width, width)
        self.offset, self.weight = nn.Linear(width, heads * 2 * places * 2), nn.Linear(width, heads * 2 * places)
        self.queries, self.reference, self.boxes, self.kinds = nn.Parameter(torch.zeros(6, width)), nn.Linear(width, 2), nn.Linear(width, 4), nn.Linear(width, 5)
        self.after, self.heads, self.places = nn.LayerNorm(width), heads, places

    def forward(self, picture):
        x = F.relu(self.norm(self.stem(picture)))
        levels = [x, self.small(x)]
        b, c = x.shape[:2]
        q = self.queries.expand(b, -1, -1)
        reference = torch.sigmoid(self.reference(q))
        sizes = torch.tensor([[y.shape[3], y.shape[2]] for y in levels], dtype=torch.float32)
        offset = self.offset(q).view(b, 6, self.heads, 2, self.places, 2)
        share = torch.softmax(self.weight(q).view(b, 6, self.heads, -1), -1).view(b, 6, self.heads, 2, self.places)
        place = reference[:, :, None, None, None] + offset / sizes[:, None]
        seen = []
        for k, y in enumerate(levels):
            v = self.value(y.flatten(2).transpose(1, 2)).view(b, -1, self.heads, c // self.heads).permute(0, 2, 3, 1).reshape(b * self.heads, c // self.heads, *y.shape[2:])
            grid = (2 * place[:, :, :, k] - 1).transpose(1, 2).flatten(0, 1)
            seen.append(F.grid_sample(v, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
        w = share.permute(0, 2, 1, 3, 4).reshape(b * self.heads, 1, 6, -1)
        y = (torch.cat(seen, -1) * w).sum(-1).view(b, c, 6).transpose(1, 2)
        q = self.after(q + self.out(y))
        logit = torch.log(reference.clamp(1e-4, 1 - 1e-4) / (1 - reference).clamp(1e-4))
        return torch.sigmoid(self.boxes(q) + torch.cat((logit, torch.zeros_like(logit)), -1)), self.kinds(q)


def deformable(rng):
    return Deformable(), {"picture": _image(rng)}


class Speaking(nn.Module):
    """Text to mel bands: an encoder by convolutions, attention that knows where it looked before, cells, a prenet, a corrected result."""

    def __init__(self, width=16, bands=8):
        super().__init__()
        self.embed, self.conv, self.norm = nn.Embedding(50, width), nn.Conv1d(width, width, 5, padding=2), nn.BatchNorm1d(width)
        self.encode = nn.LSTM(width, width // 2, batch_first=True, bidirectional=True)
        self.prenet, self.cell, self.second = nn.Linear(bands, 12), nn.LSTMCell(12 + width, 20), nn.GRUCell(20 + width, 20)
        self.query, self.memory, self.where, self.seen, self.score = nn.Linear(20, 12, bias=False), nn.Linear(width, 12, bias=False), nn.Conv1d(2, 4, 5, padding=2, bias=False), nn.Linear(4, 12, bias=False), nn.Linear(12, 1, bias=False)
        self.mel, self.stop, self.post = nn.Linear(20 + width, bands), nn.Linear(20 + width, 1), nn.Conv1d(bands, bands, 5, padding=2)

    def forward(self, ids, frames):
        x = F.relu(self.norm(self.conv(self.embed(ids).transpose(1, 2)))).transpose(1, 2)
        memory, _ = self.encode(x)
        b, s, w = memory.shape
        keys = self.memory(memory)
        share, total, context = memory.new_zeros(b, s), memory.new_zeros(b, s), memory.new_zeros(b, w)
        state, h, mels, stops = None, memory.new_zeros(b, 20), [], []
        for t in range(frames.shape[1]):
            p = F.relu(self.prenet(frames[:, t]))
            state = self.cell(torch.cat((p, context), -1), state)
            places = self.where(torch.stack((share, total), 1)).transpose(1, 2)
            e = self.score(torch.tanh(self.query(state[0])[:, None] + keys + self.seen(places))).squeeze(-1)
            share = torch.softmax(e, -1)
            total = total + share
            context = (share[:, None] @ memory).squeeze(1)
            h = self.second(torch.cat((state[0], context), -1), h)
            both = torch.cat((h, context), -1)
            mels.append(self.mel(both))
            stops.append(torch.sigmoid(self.stop(both)))
        mel = torch.stack(mels, 1)
        return mel + torch.tanh(self.post(mel.transpose(1, 2))).transpose(1, 2), torch.cat(stops, 1)


def speaking(rng):
    return Speaking(), {"ids": _ids(rng, 50, (2, 9)), "frames": _normal(rng, 2, 3, 8)}


class Pose(nn.Module):
    """Keypoints from heat maps: transposed convolutions, the mean place under a softmax, its spread, and the best place with half a step."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 5, 4, 2), nn.BatchNorm2d(12)
        self.squeeze, self.excite = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.deep, self.up, self.upnorm, self.heat = nn.Conv2d(12, 16, 3, 2, 1), nn.ConvTranspose2d(16, 12, 4, 2, 1, bias=False), nn.BatchNorm2d(12), nn.Conv2d(12, 5, 1)
        self.sharp = nn.Parameter(torch.tensor(2.0))

    def forward(self, picture):
        x = F.hardswish(self.norm(self.stem(picture)))
        x = x * F.hardsigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        y = self.heat(F.relu(self.upnorm(self.up(F.relu(self.deep(x))))) + x)
        b, k, h, w = y.shape
        share = torch.softmax(y.flatten(2) * (self.sharp + 2), -1).view(b, k, h, w)
        rows, columns = (torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w
        place = torch.stack(((share.sum(2) * columns).sum(-1), (share.sum(3) * rows).sum(-1)), -1)
        spread = torch.sqrt((share.sum(2) * (columns - place[..., :1]).square()).sum(-1) + 1e-6)
        best, at = y.flatten(2).max(-1)
        return place, spread, torch.stack((at % w, torch.div(at, w, rounding_mode="floor")), -1).to(y.dtype) * 4 + 2, best


def pose(rng):
    return Pose(), {"picture": _image(rng)}


class Rays(nn.Module):
    """A radiance field: places and directions as sinusoids, density and colour, what light is left along each ray."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(27, 32), nn.Linear(32, 32), nn.Linear(32 + 27, 32)
        self.density, self.feature, self.turned, self.colour = nn.Linear(32, 1), nn.Linear(32, 24), nn.Linear(24 + 15, 24), nn.Linear(24, 3)

    @staticmethod
    def encode(x, count):
        parts = [x]
        for k in range(count):
            parts += [torch.sin(2.0 ** k * math.pi * x), torch.cos(2.0 ** k * math.pi * x)]
        return torch.cat(parts, -1)

    def forward(self, origins, directions, depths):
        points = origins[:, None] + directions[:, None] * depths[..., None]
        e = self.encode(points * 0.2, 4)
        h = F.relu(self.second(F.relu(self.first(e))))
        h = F.relu(self.third(torch.cat((h, e), -1)))
        density = F.softplus(self.density(h)[..., 0] - 1)
        toward = self.encode(directions / directions.norm(dim=-1, keepdim=True), 2)
        c = F.relu(self.turned(torch.cat((self.feature(h), toward[:, None].expand(-1, depths.shape[1], -1)), -1)))
        colour = torch.sigmoid(self.colour(c)) * 1.002 - 0.001
        step = torch.cat((depths[:, 1:] - depths[:, :-1], torch.full_like(depths[:, :1], 1.0)), 1)
        alpha = 1 - torch.exp(-density * step)
        through = torch.exp(-(density * step).cumsum(1) + density * step)
        weight = alpha * through
        total = weight.sum(1)
        return (weight[..., None] * colour).sum(1) + (1 - total)[:, None], (weight * depths).sum(1) / (total + 1e-6), weight


def rays(rng):
    start = torch.from_numpy(rng.random((8, 1)).astype("float32"))
    return Rays(), {"origins": _normal(rng, 8, 3), "directions": _normal(rng, 8, 3), "depths": start + 0.5 * torch.arange(1, 7)}


class Voices(nn.Module):
    """Who speaks: channels in scales one after the other, squeeze and excitation, mean and spread weighted by attention, angles to known voices."""

    def __init__(self, width=24):
        super().__init__()
        self.first, self.norm = nn.Conv1d(14, width, 5, padding=2), nn.BatchNorm1d(width)
        self.scales, self.into, self.back = nn.ModuleList(nn.Conv1d(6, 6, 3, padding=2, dilation=2) for _ in range(3)), nn.Conv1d(width, width, 1), nn.Conv1d(width, width, 1)
        self.less, self.more = nn.Conv1d(width, 6, 1), nn.Conv1d(6, width, 1)
        self.attend, self.score, self.last = nn.Conv1d(3 * width, 10, 1), nn.Conv1d(10, width, 1), nn.Linear(2 * width, 12)
        self.known = nn.Parameter(torch.zeros(9, 12))

    def forward(self, features):
        x = self.norm(F.relu(self.first(features)))
        parts = self.into(x).chunk(4, 1)
        done = [parts[0]]
        for part, scale in zip(parts[1:], self.scales):
            done.append(F.relu(scale(part + done[-1] if len(done) > 1 else part)))
        y = self.back(torch.cat(done, 1))
        y = y * torch.sigmoid(self.more(F.relu(self.less(y.mean(-1, keepdim=True)))))
        x = x + y
        mean, spread = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False).clamp(min=1e-6).sqrt()
        a = torch.tanh(self.attend(torch.cat((x, mean.expand_as(x), spread.expand_as(x)), 1)))
        a = torch.softmax(self.score(a), -1)
        mean = (a * x).sum(-1)
        spread = ((a * x.square()).sum(-1) - mean.square()).clamp(min=1e-6).sqrt()
        e = self.last(torch.cat((mean, spread), -1))
        return F.normalize(e, dim=-1) @ F.normalize(self.known, dim=-1).T, e


def voices(rng):
    return Voices(), {"features": _normal(rng, 2, 14, 15)}


class Triangles(nn.Module):
    """Pairs of residues: products over the third corner, an outer product of sequences, attention whose bias the pairs give, distances in bins."""

    def __init__(self, width=12, single=16):
        super().__init__()
        self.left, self.right, self.gates, self.out = (nn.Linear(width, o) for o in (width, width, 2 * width, width))
        self.norms, self.single = nn.ModuleList(nn.LayerNorm(n) for n in (width, width, single, single)), nn.Linear(21, single)
        self.a, self.b, self.outer = nn.Linear(single, 6), nn.Linear(single, 6), nn.Linear(36, width)
        self.pairs, self.relative = nn.Linear(2 * single, width), nn.Embedding(9, width)
        self.qkv, self.bias, self.gate, self.back, self.bins = nn.Linear(single, 3 * single, bias=False), nn.Linear(width, 2, bias=False), nn.Linear(single, single), nn.Linear(single, single), nn.Linear(width, 10)

    def forward(self, residues, chain):
        s = self.single(residues)
        b, n, w = s.shape
        place = torch.arange(n)
        apart = (place[:, None] - place[None]).clamp(-4, 4) + 4
        z = self.pairs(torch.cat((s[:, :, None].expand(-1, -1, n, -1), s[:, None].expand(-1, n, -1, -1)), -1)) + self.relative(apart)
        same = (chain[:, :, None] == chain[:, None]).to(z.dtype)[..., None]
        y = self.norms[0](z)
        g, h = torch.sigmoid(self.gates(y)).chunk(2, -1)
        t = torch.einsum("bikc,bjkc->bijc", self.left(y) * g * same, self.right(y))
        z = z + h * self.out(self.norms[1](t))
        u = self.norms[2](s)
        o = torch.einsum("bic,bjd->bijcd", self.a(u), self.b(u)).flatten(3)
        z = z + self.outer(o) / n
        u = self.norms[3](s)
        q, k, v = self.qkv(u).view(b, n, 3, 2, -1).permute(2, 0, 3, 1, 4)
        score = q @ k.transpose(-1, -2) / math.sqrt(w // 2) + self.bias(z).permute(0, 3, 1, 2)
        m = (torch.softmax(score, -1) @ v).transpose(1, 2).flatten(2)
        s = s + self.back(torch.sigmoid(self.gate(u)) * m)
        return torch.log_softmax(self.bins(z + z.transpose(1, 2)), -1), s


def triangles(rng):
    return Triangles(), {"residues": _normal(rng, 2, 7, 21), "chain": torch.tensor([[0, 0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 2, 2]])}


class Tables(nn.Module):
    """Columns of a table chosen step by step with sparse weights; what was used is used less again."""

    def __init__(self, columns=10, width=8):
        super().__init__()
        self.norm, self.first = nn.BatchNorm1d(columns), nn.Linear(columns, 4 * width)
        self.choose, self.chosen = nn.ModuleList(nn.Linear(width, columns, bias=False) for _ in range(2)), nn.ModuleList(nn.BatchNorm1d(columns) for _ in range(2))
        self.shared, self.own, self.last = nn.Linear(columns, 4 * width), nn.ModuleList(nn.Linear(2 * width, 4 * width) for _ in range(2)), nn.Linear(width, 3)

    @staticmethod
    def sparsemax(x):
        ordered = torch.sort(x, -1, descending=True)[0]
        sums = ordered.cumsum(-1) - 1
        rank = torch.arange(1, x.shape[-1] + 1).to(x.dtype)
        support = (rank * ordered > sums).to(x.dtype).sum(-1, keepdim=True)
        at = sums.gather(-1, support.long() - 1)
        return F.relu(x - at / support)

    def forward(self, rows):
        x = self.norm(rows)
        prior, total, masks = torch.ones_like(x), 0, []
        a = F.glu(self.first(x))[:, :8]
        for k in range(2):
            mask = self.sparsemax(self.chosen[k](self.choose[k](a)) * prior)
            prior = prior * (1.3 - mask)
            h = F.glu(self.shared(mask * x))
            h = (h + F.glu(self.own[k](h))) * math.sqrt(0.5)
            d, a = h.split([8, 8], -1)
            total = total + F.relu(d)
            masks.append(mask)
        entropy = torch.stack([-(m * torch.log(m + 1e-10)).sum(-1) for m in masks]).mean(0)
        return self.last(total), entropy


def tables(rng):
    return Tables(), {"rows": _normal(rng, 16, 10) * 2}


class Styles(nn.Module):
    """Pictures from codes: kernels scaled by a style and brought back to unit length, upsampled with a blur, noise, a skip of colours."""

    def __init__(self, width=12):
        super().__init__()
        self.map, self.start = nn.ModuleList(nn.Linear(10, 10) for _ in range(2)), nn.Parameter(torch.zeros(1, width, 4, 4))
        self.kernels, self.style, self.bias = nn.ParameterList(nn.Parameter(torch.zeros(width, width, 3, 3)) for _ in range(2)), nn.ModuleList(nn.Linear(10, width) for _ in range(2)), nn.ParameterList(nn.Parameter(torch.zeros(width)) for _ in range(2))
        self.colour, self.strength = nn.ModuleList(nn.Conv2d(width, 3, 1) for _ in range(2)), nn.Parameter(torch.zeros(2))
        blur = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("blur", (blur[:, None] * blur / 64).expand(width, 1, 4, 4).clone())

    def modulated(self, x, w, k):
        b, c = x.shape[:2]
        style = self.style[k](w) + 1
        kernel = self.kernels[k][None] * style[:, None, :, None, None]
        kernel = kernel * torch.rsqrt(kernel.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        y = F.conv2d(x.reshape(1, b * c, *x.shape[2:]), kernel.reshape(b * c, c, 3, 3), padding=1, groups=b)
        return y.view(b, c, *x.shape[2:])

    def forward(self, code, noise):
        w = code * torch.rsqrt(code.square().mean(1, keepdim=True) + 1e-8)
        for layer in self.map:
            w = F.leaky_relu(layer(w), 0.2) * math.sqrt(2)
        x = self.start.expand(code.shape[0], -1, -1, -1)
        x = F.leaky_relu(self.modulated(x, w, 0) + self.strength[0] * noise[:, :, ::2, ::2] + self.bias[0].view(1, -1, 1, 1), 0.2) * math.sqrt(2)
        picture = self.colour[0](x)
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        x = F.conv2d(F.pad(x, (2, 1, 2, 1)), self.blur, groups=x.shape[1])
        x = F.leaky_relu(self.modulated(x, w, 1) + self.strength[1] * noise + self.bias[1].view(1, -1, 1, 1), 0.2) * math.sqrt(2)
        return torch.clamp(F.interpolate(picture, scale_factor=2.0, mode="bilinear", align_corners=False) + self.colour[1](x), -4, 4)


def styles(rng):
    return Styles(), {"code": _normal(rng, 2, 10), "noise": _normal(rng, 2, 1, 8, 8)}


class Kernelised(nn.Module):
    """Attention by positive features in place of a softmax, over the past by running sums; positions turn queries and keys in pairs."""

    def __init__(self, width=24, heads=3):
        super().__init__()
        self.embed, self.norms, self.heads = nn.Embedding(125, width), nn.ParameterList(nn.Parameter(torch.ones(width)) for _ in range(3)), heads
        self.qkv, self.out, self.gate, self.up, self.down = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False), nn.Linear(width, 40, bias=False), nn.Linear(width, 40, bias=False), nn.Linear(40, width, bias=False)

    def norm(self, x, k):
        return x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.norms[k]

    @staticmethod
    def turned(x, cos, sin):
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)

    def forward(self, ids):
        x = self.embed(ids) * 24 ** 0.5
        b, s, w = x.shape
        q, k, v = self.qkv(self.norm(x, 0)).view(b, s, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        angle = torch.arange(s)[:, None].float() * 500.0 ** (-torch.arange(0, 8, 2) / 8)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        total = 1 / ((q * k.cumsum(-2)).sum(-1, keepdim=True) + 1e-6)
        q, k = self.turned(q, torch.cos(angle), torch.sin(angle)), self.turned(k, torch.cos(angle), torch.sin(angle))
        memory = (k[..., :, None] * v[..., None, :]).cumsum(-3)
        y = (q[..., None, :] @ memory).squeeze(-2) * total
        x = x + self.out(y.transpose(1, 2).flatten(2))
        y = self.norm(x, 1)
        x = x + self.down(F.gelu(self.gate(y)) * self.up(y))
        return 20 * torch.tanh(self.norm(x, 2) @ self.embed.weight.T / 20)


def kernelised(rng):
    return Kernelised(), {"ids": _ids(rng, 125, (2, 7))}


BUILDERS = {f.__name__: f for f in (vocoder, edges, anchors, relative, denoiser, dit, chunked, switch, quantised, bags, cached, dilated, rwkv, deformable, speaking, pose, rays, voices, triangles,
                                    tables, styles, kernelised)}
