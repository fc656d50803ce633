"""Small networks of the second set from other fields than text and pictures of the usual kind, written by hand; same contract as networks_text."""
import math

import torch
from torch import nn
from torch.nn import functional as F

from .networks_signal import _image
from .networks_text import _ids


def _normal(rng, *shape):
    return torch.from_numpy(rng.standard_normal(shape).astype("float32"))


class Recommender(nn.Module):
    """Embeddings of categories, a small network for numbers, all pairs multiplied, a deep and a wide way added."""

    def __init__(self):
        super().__init__()
        self.tables, self.wide = nn.ModuleList(nn.Embedding(n, 12) for n in (150, 40, 20, 60)), nn.Embedding(150, 1)
        self.bottom = nn.Sequential(nn.Linear(9, 24), nn.ReLU(), nn.Linear(24, 12), nn.ReLU())
        self.cross, self.deep = nn.Linear(60, 60), nn.Sequential(nn.Linear(70, 40), nn.ReLU(), nn.Linear(40, 20), nn.PReLU(20), nn.Linear(20, 1))
        self.register_buffer("low", torch.tril_indices(5, 5, -1))

    def forward(self, numbers, ids):
        parts = torch.stack([self.bottom(torch.log1p(numbers.abs())), *(t(ids[:, i]) for i, t in enumerate(self.tables))], 1)
        flat = parts.flatten(1)
        crossed = flat * self.cross(flat) + flat
        pairs = (parts @ parts.transpose(1, 2))[:, self.low[0], self.low[1]]
        square = 0.5 * (parts.sum(1).square() - parts.square().sum(1)).sum(-1, keepdim=True)
        return torch.sigmoid(self.deep(torch.cat((crossed, pairs), 1)) + self.wide(ids[:, 0]) + square)


def recommender(rng):
    return Recommender(), {"numbers": _normal(rng, 12, 9) * 3, "ids": torch.stack([torch.from_numpy(rng.integers(1, n, 12)) for n in (150, 40, 20, 60)], 1)}


class Points(nn.Module):
    """A learned turn of the cloud, shared layers, neighbours by distance, a maximum over all points."""

    def __init__(self):
        super().__init__()
        self.turn, self.turn_out = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 24, 1), nn.ReLU()), nn.Linear(24, 9)
        self.first, self.edge = nn.Conv1d(3, 16, 1), nn.Sequential(nn.Conv2d(32, 24, 1, bias=False), nn.BatchNorm2d(24), nn.LeakyReLU(0.2))
        self.position, self.attend, self.last = nn.Linear(3, 24), nn.Linear(24, 24), nn.Linear(24, 6)

    def forward(self, points):
        b, _, n = points.shape
        t = self.turn_out(self.turn(points).amax(-1)).view(b, 3, 3) + torch.eye(3)
        points = (points.transpose(1, 2) @ t).transpose(1, 2)
        x = self.first(points)
        inner = points.transpose(1, 2) @ points
        square = points.square().sum(1)
        distance = square[:, :, None] - 2 * inner + square[:, None]
        near = distance.topk(5, -1, largest=False)[1]
        index = (near + torch.arange(b).view(-1, 1, 1) * n).flatten()
        around = x.transpose(1, 2).reshape(b * n, -1)[index].view(b, n, 5, -1)
        self_ = x.transpose(1, 2)[:, :, None].expand_as(around)
        e = self.edge(torch.cat((around - self_, self_), -1).permute(0, 3, 1, 2))
        places = points.transpose(1, 2).reshape(b * n, 3)[index].view(b, n, 5, 3) - points.transpose(1, 2)[:, :, None]
        e = e.permute(0, 2, 3, 1) + self.position(places)
        e = (torch.softmax(self.attend(e), 2) * e).sum(2)
        return self.last(e.amax(1)), e


def points(rng):
    return Points(), {"points": _normal(rng, 2, 3, 20)}


class Spectral(nn.Module):
    """A neural operator: the lowest frequencies of a field are multiplied by learned complex weights."""

    def __init__(self, width=12, modes=5):
        super().__init__()
        self.lift, self.project, self.last = nn.Linear(3, width), nn.Linear(width, 24), nn.Linear(24, 1)
        self.real, self.imaginary = (nn.ParameterList(nn.Parameter(torch.zeros(width, width, modes)) for _ in range(2)) for _ in range(2))
        self.local, self.modes = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(2)), modes

    def transform(self, n):
        k, x = torch.arange(self.modes).float(), torch.arange(n).float()
        angle = 2 * math.pi * k[:, None] * x / n
        return torch.cos(angle), torch.sin(angle)

    def forward(self, field):
        n = field.shape[1]
        place = torch.linspace(0, 1, n).view(1, n, 1).expand(field.shape[0], -1, -1)
        x = self.lift(torch.cat((field, place), -1)).transpose(1, 2)
        cos, sin = self.transform(n)
        share = torch.cat((torch.ones(1), torch.full((self.modes - 1,), 2.0)))[:, None] / n
        for real, imaginary, local in zip(self.real, self.imaginary, self.local):
            re, im = x @ cos.T, -(x @ sin.T)
            out_re = torch.einsum("bim,iom->bom", re, real) - torch.einsum("bim,iom->bom", im, imaginary)
            out_im = torch.einsum("bim,iom->bom", re, imaginary) + torch.einsum("bim,iom->bom", im, real)
            x = F.gelu(out_re @ (cos * share) - out_im @ (sin * share) + local(x))
        return self.last(F.gelu(self.project(x.transpose(1, 2))))


def spectral(rng):
    return Spectral(), {"field": _normal(rng, 2, 32, 2).cumsum(1) * 0.4}


class Flow(nn.Module):
    """Motion between two pictures: all pairs of features, looked up around the present guess, a gated update twice."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Sequential(nn.Conv2d(3, 12, 7, 2, 3), nn.InstanceNorm2d(12), nn.ReLU(), nn.Conv2d(12, 16, 3, 2, 1))
        self.context = nn.Conv2d(3, 24, 5, 4, 2)
        self.motion, self.gates, self.new, self.head = nn.Conv2d(27, 12, 3, 1, 1), nn.Conv2d(24, 24, 3, 1, 1), nn.Conv2d(24, 12, 3, 1, 1), nn.Conv2d(12, 2, 3, 1, 1)
        self.mask = nn.Conv2d(12, 9 * 4, 1)

    def forward(self, first, second):
        a, b = self.encode(first), self.encode(second)
        n, c, h, w = a.shape
        volume = (a.flatten(2).transpose(1, 2) @ b.flatten(2) / c ** 0.5).reshape(n * h * w, 1, h, w)
        rows, columns = torch.meshgrid(torch.arange(h).float(), torch.arange(w).float(), indexing="ij")
        base = torch.stack((columns, rows), 0)[None]
        around = torch.stack(torch.meshgrid(torch.arange(-2.0, 3.0), torch.arange(-2.0, 3.0), indexing="xy"), -1)
        state, _ = self.context(first).tanh().chunk(2, 1)
        flow = torch.zeros_like(base).expand(n, -1, -1, -1)
        for _ in range(2):
            centre = (base + flow).permute(0, 2, 3, 1).reshape(n * h * w, 1, 1, 2)
            grid = (centre + around) * torch.tensor([2.0 / (w - 1), 2.0 / (h - 1)]) - 1
            seen = F.grid_sample(volume, grid, align_corners=True, padding_mode="zeros").reshape(n, h, w, 25).permute(0, 3, 1, 2)
            m = F.relu(self.motion(torch.cat((seen, flow), 1)))
            z, r = torch.sigmoid(self.gates(torch.cat((state, m), 1))).chunk(2, 1)
            q = torch.tanh(self.new(torch.cat((r * state, m), 1)))
            state = (1 - z) * state + z * q
            flow = flow + self.head(state)
        weights = torch.softmax(self.mask(state).view(n, 1, 9, 2, 2, h, w), 2)
        around = F.unfold(2 * flow, 3, padding=1).view(n, 2, 9, 1, 1, h, w)
        return (weights * around).sum(2).permute(0, 1, 4, 2, 5, 3).reshape(n, 2, 2 * h, 2 * w), flow


def flow(rng):
    first = _image(rng, 2, 24)
    return Flow(), {"first": first, "second": torch.roll(first, (1, 2), (2, 3)) + 0.1 * _normal(rng, 2, 3, 24, 24)}


class Upscaler(nn.Module):
    """Channel attention, long skips, pixels shuffled into a picture twice as large, mean colours taken off and put back."""

    def __init__(self):
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 16, 3, 1, 1), nn.Sequential(nn.Conv2d(16, 48, 3, 1, 1), nn.PixelShuffle(2), nn.Conv2d(12, 3, 3, 1, 1))
        self.a, self.b = (nn.ModuleList(nn.Conv2d(16, 16, 3, 1, 1) for _ in range(3)) for _ in range(2))
        self.less, self.more = (nn.ModuleList(nn.Conv2d(i, o, 1) for _ in range(3)) for i, o in ((16, 4), (4, 16)))
        self.register_buffer("mean", torch.tensor([0.45, 0.44, 0.40]).view(1, 3, 1, 1))

    def forward(self, picture):
        x = first = self.head(picture - self.mean)
        for a, b, less, more in zip(self.a, self.b, self.less, self.more):
            y = b(F.relu(a(x)))
            x = x + 0.2 * y * torch.sigmoid(more(F.relu(less(F.adaptive_avg_pool2d(y, 1)))))
        x = x + F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="nearest")
        return self.tail(x + first) + F.interpolate(picture, scale_factor=2, mode="bicubic", align_corners=False) + self.mean


def upscaler(rng):
    return Upscaler(), {"picture": _image(rng, size=20) * 0.2 + 0.45}


class Mixture(nn.Module):
    """A world model's memory: a recurrent layer and a mixture of Gaussians for what comes next."""

    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(11, 24, batch_first=True), nn.Linear(24, 5 * (1 + 2 * 4))
        self.reward = nn.Linear(24, 1)

    def forward(self, seen, actions):
        h, (last, cell) = self.rnn(torch.cat((seen, actions), -1))
        share, rest = self.out(h).split([5, 40], -1)
        mean, deviation = rest.unflatten(-1, (5, 8)).chunk(2, -1)
        deviation = F.softplus(deviation) + 0.05
        log = -0.5 * ((seen[..., None, :4] - mean) / deviation).square() - deviation.log() - 0.5 * math.log(2 * math.pi)
        return torch.logsumexp(torch.log_softmax(share, -1) + log.sum(-1), -1), (torch.softmax(share, -1)[..., None] * mean).sum(-2), self.reward(h), cell


def mixture(rng):
    return Mixture(), {"seen": _normal(rng, 2, 10, 8), "actions": _normal(rng, 2, 10, 3).tanh()}


class Capsules(nn.Module):
    """Vectors squashed to lengths below one, routed by agreement three times."""

    def __init__(self):
        super().__init__()
        self.first, self.primary = nn.Conv2d(1, 12, 5), nn.Conv2d(12, 16, 5, 2)
        self.vote, self.decode = nn.Parameter(torch.zeros(36 * 2, 4, 6, 8)), nn.Linear(24, 20)

    @staticmethod
    def squash(x):
        square = x.square().sum(-1, keepdim=True)
        return square / (1 + square) * x / (square + 1e-7).sqrt()

    def forward(self, x):
        x = F.relu(self.first(x))
        x = self.primary(x)
        b = x.shape[0]
        u = self.squash(x.view(b, 2, 8, -1).permute(0, 1, 3, 2).reshape(b, -1, 8))
        votes = torch.einsum("nkoi,bni->bnko", self.vote, u)
        logits = torch.zeros(b, votes.shape[1], 4)
        for step in range(3):
            v = self.squash((torch.softmax(logits, -1)[..., None] * votes).sum(1))
            if step < 2:
                logits = logits + (votes * v[:, None]).sum(-1)
        return v.norm(dim=-1), self.decode(v.flatten(1))


def capsules(rng):
    return Capsules(), {"picture": _image(rng, size=20, channels=1)}


class Codes(nn.Module):
    """A sound or picture in codes: nearest vectors of a book, the rest coded again, and numbers rounded to a few levels."""

    def __init__(self):
        super().__init__()
        self.down, self.norm, self.inner = nn.Conv2d(3, 12, 4, 2, 1), nn.GroupNorm(3, 12), nn.Conv2d(12, 8, 4, 2, 1)
        self.books = nn.ParameterList(nn.Parameter(torch.zeros(20, 8)) for _ in range(2))
        self.narrow, self.wide, self.up, self.out = nn.Linear(8, 3), nn.Linear(3, 8), nn.ConvTranspose2d(8, 12, 4, 2, 1), nn.ConvTranspose2d(12, 3, 4, 2, 1)

    def forward(self, x):
        x = self.inner(F.silu(self.norm(self.down(x)))).permute(0, 2, 3, 1)
        rest, total, codes = x, torch.zeros_like(x), []
        for book in self.books:
            distance = rest.square().sum(-1, keepdim=True) - 2 * rest @ book.T + book.square().sum(-1)
            code = distance.argmin(-1)
            found = F.embedding(code, book)
            rest, total = rest - found, total + found
            codes.append(code)
        levels = torch.round(torch.tanh(self.narrow(rest)) * 3.5 - 0.5) / 3.5
        y = (total + self.wide(levels)).permute(0, 3, 1, 2)
        return self.out(F.silu(self.up(y))), torch.stack(codes, 1)


def codes(rng):
    return Codes(), {"picture": _image(rng, size=24)}


class Listener(nn.Module):
    """Sound to words: pre-emphasis, a windowed transform as a convolution, mel bands, logarithm, normed, convolutions, a recurrent layer."""

    def __init__(self, window=64, hop=16, bands=16):
        super().__init__()
        n, k = torch.arange(window).float(), torch.arange(window // 2 + 1).float()
        hann = 0.5 - 0.5 * torch.cos(2 * math.pi * n / window)
        angle = 2 * math.pi * k[:, None] * n / window
        self.register_buffer("basis", torch.cat((torch.cos(angle), -torch.sin(angle)))[:, None] * hann)
        centres = torch.linspace(0, window // 2, bands + 2)
        left, centre, right = centres[:-2, None], centres[1:-1, None], centres[2:, None]
        self.register_buffer("mel", torch.minimum((k - left) / (centre - left), (right - k) / (right - centre)).clamp(min=0))
        self.conv, self.norm = nn.Conv2d(1, 6, 3, (2, 1), 1), nn.BatchNorm2d(6)
        self.rnn, self.out, self.hop = nn.GRU(48, 20, batch_first=True, bidirectional=True), nn.Linear(40, 12), hop

    def forward(self, sound):
        x = torch.cat((sound[:, :1], sound[:, 1:] - 0.97 * sound[:, :-1]), 1)
        x = F.pad(x[:, None], (32, 32), mode="reflect")
        real, imaginary = F.conv1d(x, self.basis, stride=self.hop).chunk(2, 1)
        x = torch.log(torch.clamp(self.mel @ (real.square() + imaginary.square()), min=1e-5))
        x = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-3)
        x = F.hardtanh(self.norm(self.conv(x[:, None])), 0, 4)
        x, _ = self.rnn(x.flatten(1, 2).transpose(1, 2))
        return torch.log_softmax(self.out(x), -1)


def listener(rng):
    return Listener(), {"sound": _normal(rng, 2, 400).cumsum(-1) * 0.2}


class Chain(nn.Module):
    """A linear-chain field: scores of tags, the best path by maxima and the sum over all paths, both step by step."""

    def __init__(self, tags=6):
        super().__init__()
        self.embed, self.conv, self.emit = nn.Embedding(140, 20), nn.Conv1d(20, 28, 3, padding=1), nn.Linear(28, tags)
        self.moves, self.begin, self.end = nn.Parameter(torch.zeros(tags, tags)), nn.Parameter(torch.zeros(tags)), nn.Parameter(torch.zeros(tags))

    def forward(self, ids):
        emission = self.emit(F.gelu(self.conv(self.embed(ids).transpose(1, 2)), approximate="tanh").transpose(1, 2))
        best = total = self.begin + emission[:, 0]
        back = []
        for t in range(1, ids.shape[1]):
            value, which = (best[:, :, None] + self.moves).max(1)
            back.append(which)
            best = value + emission[:, t]
            total = torch.logsumexp(total[:, :, None] + self.moves, 1) + emission[:, t]
        tag = (best + self.end).argmax(-1, keepdim=True)
        path = [tag]
        for which in reversed(back):
            tag = which.gather(1, tag)
            path.append(tag)
        return torch.logsumexp(total + self.end, -1), torch.cat(path[::-1], 1), emission


def chain(rng):
    return Chain(), {"ids": _ids(rng, 140, (3, 7))}


class Sparse(nn.Module):
    """A net for tables: masks by sparsemax choose columns at each step, what was chosen is used less later."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(14)
        self.shared, self.own = nn.Linear(14, 32), nn.ModuleList(nn.Linear(16, 32) for _ in range(3))
        self.norms, self.choose = nn.ModuleList(nn.BatchNorm1d(32) for _ in range(4)), nn.ModuleList(nn.Linear(16, 14) for _ in range(2))
        self.out = nn.Linear(16, 4)

    @staticmethod
    def sparsemax(z):
        ordered = z.sort(-1, descending=True)[0]
        total = ordered.cumsum(-1) - 1
        steps = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype)
        count = (ordered * steps > total).sum(-1, keepdim=True)
        return torch.clamp(z - total.gather(-1, count - 1) / count.to(z.dtype), min=0)

    def feature(self, x, step):
        x = F.glu(self.norms[3](self.shared(x)))
        return (x + F.glu(self.norms[step](self.own[step](x)))) * math.sqrt(0.5)

    def forward(self, rows):
        x = self.norm(rows)
        state, prior, total = self.feature(x, 2), torch.ones_like(x), 0
        for step in range(2):
            mask = self.sparsemax(self.choose[step](state) * prior)
            prior = prior * (1.3 - mask)
            state = self.feature(x * mask, step)
            total = total + F.relu(state)
        return self.out(total), mask


def sparse(rng):
    return Sparse(), {"rows": _normal(rng, 16, 14) * 2}


class Tracker(nn.Module):
    """A template looked for in a picture: correlation channel by channel, scores and boxes, the best place picked."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 12, 3, 2), nn.BatchNorm2d(12), nn.MaxPool2d(3, 1, 1), nn.ReLU(), nn.Conv2d(12, 16, 3))
        self.score, self.box, self.scales = nn.Conv2d(16, 1, 1), nn.Conv2d(16, 4, 1), nn.Parameter(torch.ones(4))

    def forward(self, template, search):
        z, x = self.body(template), self.body(search)
        b, c, h, w = x.shape
        m = F.conv2d(x.reshape(1, b * c, h, w), z.reshape(b * c, 1, *z.shape[2:]), groups=b * c)
        m = m.view(b, c, *m.shape[2:]) * 0.01
        score = torch.sigmoid(self.score(m)).flatten(1)
        box = torch.exp(self.box(m).flatten(2) * self.scales.view(1, 4, 1) * 0.3)
        best = score.topk(3, -1)
        size = m.shape[-1]
        places = torch.stack((best[1] % size, torch.div(best[1], size, rounding_mode="floor")), -1).to(x.dtype) * 2 + 4
        boxes = box.gather(2, best[1][:, None].expand(-1, 4, -1)).transpose(1, 2)
        return best[0], torch.cat((places - boxes[..., :2], places + boxes[..., 2:]), -1), score


def tracker(rng):
    search = _image(rng, size=30)
    return Tracker(), {"template": search[:, :, 6:20, 8:22].contiguous() + 0.05, "search": search}


class Centres(nn.Module):
    """Things as points: peaks of a heat map are those equal to the maximum around them, offsets are picked there."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.Mish())
        self.down, self.up = nn.Conv2d(16, 24, 3, 2, 1), nn.ConvTranspose2d(24, 16, 3, 2, 1, output_padding=1)
        self.heat, self.offset, self.size = nn.Conv2d(16, 3, 1), nn.Conv2d(16, 2, 3, 1, 1), nn.Conv2d(16, 2, 3, 1, 1)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.up(F.mish(self.down(x)))
        heat = torch.sigmoid(self.heat(x))
        peaks = heat * (F.max_pool2d(heat, 3, 1, 1) == heat).to(heat.dtype)
        b, c, h, w = heat.shape
        score, index = peaks.flatten(1).topk(6)
        kind, place = torch.div(index, h * w, rounding_mode="floor"), index % (h * w)
        pick = lambda t: t.flatten(2).gather(2, place[:, None].expand(-1, 2, -1)).transpose(1, 2)
        where = torch.stack((place % w, torch.div(place, w, rounding_mode="floor")), -1).to(x.dtype)
        middle, half = where + pick(self.offset(x)), pick(F.softplus(self.size(x))) / 2
        return score, torch.cat((middle - half, middle + half), -1) * 2, kind, heat


def centres(rng):
    return Centres(), {"picture": _image(rng)}


class Forecast(nn.Module):
    """Blocks that explain a series by trends and waves, each taking away what it explained."""

    def __init__(self, past=20, future=8):
        super().__init__()
        time = torch.arange(past + future).float() / (past + future)
        trend = torch.stack([time ** p for p in range(3)])
        waves = torch.cat([torch.stack((torch.cos(2 * math.pi * k * time), torch.sin(2 * math.pi * k * time))) for k in range(1, 4)])
        self.register_buffer("trend", trend)
        self.register_buffer("waves", waves)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(past, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU()) for _ in range(3))
        self.heads, self.past = nn.ModuleList(nn.Linear(32, n) for n in (6, 12, 28)), past

    def forward(self, series):
        level = series.abs().mean(-1, keepdim=True) + 1e-2
        rest, total = series / level, 0
        for layer, head, basis in zip(self.layers, self.heads, (self.trend, self.waves, None)):
            theta = head(layer(rest))
            if basis is None:
                back, forward = theta.split([self.past, theta.shape[-1] - self.past], -1)
            else:
                b, f = theta.chunk(2, -1)
                back, forward = b @ basis[:, : self.past], f @ basis[:, self.past:]
            rest, total = rest - back, total + forward
        return total * level, rest


def forecast(rng):
    return Forecast(), {"series": _normal(rng, 6, 20).cumsum(-1) * 0.6 + 3}


class Waves(nn.Module):
    """Causal convolutions that reach further at each layer, gated, conditioned, with skips to the end; weights in direction and length."""

    def __init__(self, width=16):
        super().__init__()
        norm = torch.nn.utils.parametrizations.weight_norm
        self.first, self.condition = nn.Conv1d(1, width, 1), nn.Linear(5, width)
        self.both = nn.ModuleList(norm(nn.Conv1d(width, 2 * width, 2, dilation=d)) for d in (1, 2, 4))
        self.about, self.back, self.aside = (nn.ModuleList(nn.Conv1d(width, o, 1) for _ in range(3)) for o in (2 * width, width, width))
        self.last = nn.Sequential(nn.ReLU(), nn.Conv1d(width, width, 1), nn.ReLU(), nn.Conv1d(width, 8, 1))

    def forward(self, sound, speaker):
        x, about, skip = self.first(sound), torch.tanh(self.condition(speaker))[:, :, None], 0
        for d, both, more, back, aside in zip((1, 2, 4), self.both, self.about, self.back, self.aside):
            a, b = (both(F.pad(x, (d, 0))) + more(about)).chunk(2, 1)
            y = torch.tanh(a) * torch.sigmoid(b)
            skip = skip + aside(y)
            x = (x + back(y)) * math.sqrt(0.5)
        return self.last(skip)


def waves(rng):
    return Waves(), {"sound": _normal(rng, 2, 1, 24).cumsum(-1) * 0.3, "speaker": _normal(rng, 2, 5)}


class Retention(nn.Module):
    """Linear attention with decay in its parallel form, heads normed apart, beside it one with elu + 1 and running sums."""

    def __init__(self, width=32, heads=4):
        super().__init__()
        self.embed, self.heads = nn.Embedding(130, width), heads
        self.qkvg, self.out, self.inward, self.outward = nn.Linear(width, 4 * width, bias=False), nn.Linear(width, width, bias=False), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm, self.group, self.last = nn.LayerNorm(width), nn.GroupNorm(heads, width), nn.LayerNorm(width)

    def split(self, x):
        b, s, w = x.shape
        return x.view(b, s, self.heads, -1).transpose(1, 2)

    def forward(self, ids):
        x = self.embed(ids)
        b, s, w = x.shape
        q, k, v, g = self.qkvg(self.norm(x)).chunk(4, -1)
        q, k, v = self.split(q), self.split(k) * (w // self.heads) ** -0.5, self.split(v)
        gap = torch.arange(s)[:, None] - torch.arange(s)[None]
        rate = torch.log(1 - 2.0 ** (-2 - torch.arange(self.heads).float()))
        decay = torch.where(gap >= 0, torch.exp(gap.clamp(min=0) * rate[:, None, None]), torch.zeros(()))
        y = ((q @ k.transpose(-1, -2)) * decay) @ v
        y = self.group(y.transpose(1, 2).reshape(b * s, w)).view(b, s, w)
        x = x + self.out(F.silu(g) * y)
        q, k, v = map(self.split, self.inward(x).chunk(3, -1))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        state = torch.cumsum(k[..., :, None] * v[..., None, :], 2)
        y = (q[..., None, :] @ state).squeeze(-2) / ((q * torch.cumsum(k, 2)).sum(-1, keepdim=True) + 1e-6)
        return self.last(x + self.outward(y.transpose(1, 2).reshape(b, s, w)))


def retention(rng):
    return Retention(), {"ids": _ids(rng, 130, (2, 14))}


class Hyper(nn.Module):
    """One network writes the weights of another; features turned by scale and shift."""

    def __init__(self):
        super().__init__()
        self.write = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 4 * 16 + 16 + 16 * 16 + 16 + 16 * 3))
        self.film, self.omega = nn.Linear(6, 32), 6.0

    def forward(self, task, places):
        w1, b1, w2, b2, w3 = self.write(task).split([64, 16, 256, 16, 48], -1)
        n = task.shape[0]
        gain, shift = self.film(task)[:, None].chunk(2, -1)
        x = torch.sin(torch.baddbmm(b1[:, None], places, w1.view(n, 4, 16)) * self.omega * 0.2)
        x = F.layer_norm(torch.bmm(x, w2.view(n, 16, 16) * 0.25) + b2[:, None], (16,)) * (1 + gain) + shift
        return torch.bmm(F.leaky_relu(x, 0.1), w3.view(n, 16, 3) * 0.25)


def hyper(rng):
    return Hyper(), {"task": _normal(rng, 3, 6), "places": _normal(rng, 3, 11, 4)}


class Atoms(nn.Module):
    """Energies of molecules: distances in waves of a radial basis, smooth cut, messages summed at each atom, and over each molecule."""

    def __init__(self, width=20, basis=12):
        super().__init__()
        self.embed = nn.Embedding(12, width)
        self.register_buffer("centres", torch.linspace(0, 5, basis))
        self.filters = nn.ModuleList(nn.Sequential(nn.Linear(basis, width), nn.Softplus(), nn.Linear(width, width)) for _ in range(2))
        self.inward, self.outward = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(2)), nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.energy = nn.Sequential(nn.Linear(width, 10), nn.Softplus(), nn.Linear(10, 1))

    def forward(self, kinds, places, senders, receivers, molecule):
        away = places[receivers] - places[senders]
        far = (away.square().sum(-1) + 1e-9).sqrt()
        waves = torch.exp(-2.0 * (far[:, None] - self.centres).square())
        cut = torch.where(far < 5, 0.5 * (torch.cos(far * math.pi / 5) + 1), torch.zeros_like(far))
        x = self.embed(kinds)
        for filters, inward, outward in zip(self.filters, self.inward, self.outward):
            messages = inward(x)[senders] * filters(waves) * cut[:, None]
            x = x + F.softplus(outward(torch.zeros_like(x).scatter_add(0, receivers[:, None].expand_as(messages), messages))) - math.log(2)
        return torch.zeros(3, 1).scatter_add(0, molecule[:, None], self.energy(x)), x


def atoms(rng):
    n, e = 15, 48
    senders = rng.integers(0, n, e)
    return Atoms(), {"kinds": torch.from_numpy(rng.integers(1, 12, n)), "places": _normal(rng, n, 3) * 1.8, "senders": torch.from_numpy(senders),
                     "receivers": torch.from_numpy((senders + rng.integers(1, n, e)) % n), "molecule": torch.from_numpy(rng.integers(0, 3, n))}


class Translator(nn.Module):
    """A recurrent encoder and decoder with additive attention that remembers where it has looked, and copies words."""

    def __init__(self, width=20, words=110):
        super().__init__()
        self.embed, self.encode = nn.Embedding(words, width), nn.GRU(width, width, batch_first=True)
        self.cell, self.query, self.key, self.covered, self.score = nn.LSTMCell(2 * width, width), nn.Linear(width, width), nn.Linear(width, width), nn.Linear(1, width), nn.Linear(width, 1, bias=False)
        self.out, self.copy, self.words = nn.Linear(2 * width, words), nn.Linear(2 * width, 1), words

    def forward(self, source, target):
        memory, last = self.encode(self.embed(source))
        h = last[0]
        c, keys, seen, results = torch.zeros_like(h), self.key(memory), torch.zeros(source.shape, dtype=torch.float32), []
        context = memory.mean(1)
        for t in range(target.shape[1]):
            h, c = self.cell(torch.cat((self.embed(target[:, t]), context), -1), (h, c))
            weights = torch.softmax(self.score(torch.tanh(keys + self.query(h)[:, None] + self.covered(seen[..., None]))).squeeze(-1), -1)
            context, seen = (weights[:, None] @ memory).squeeze(1), seen + weights
            both = torch.cat((h, context), -1)
            copied = torch.sigmoid(self.copy(both))
            share = torch.softmax(self.out(both), -1) * (1 - copied)
            results.append(torch.log(share.scatter_add(1, source, weights * copied) + 1e-6))
        return torch.stack(results, 1), seen


def translator(rng):
    return Translator(), {"source": _ids(rng, 110, (2, 9)), "target": _ids(rng, 110, (2, 4))}


class Weather(nn.Module):
    """A convolutional LSTM over frames, borders wrapped around east to west."""

    def __init__(self, width=10):
        super().__init__()
        self.gates, self.out, self.peep, self.width = nn.Conv2d(2 + width, 4 * width, 3), nn.Conv2d(width, 2, 1), nn.Parameter(torch.zeros(3, width, 1, 1)), width

    def forward(self, frames):
        b, t, _, rows, columns = frames.shape
        h = frames.new_zeros(b, self.width, rows, columns)
        c = h
        for step in range(t):
            x = torch.cat((frames[:, step], h), 1)
            x = F.pad(torch.cat((x[..., -1:], x, x[..., :1]), -1), (0, 0, 1, 1), mode="replicate")
            i, f, g, o = self.gates(x).chunk(4, 1)
            c = torch.sigmoid(f + self.peep[1] * c) * c + torch.sigmoid(i + self.peep[0] * c) * torch.tanh(g)
            h = torch.sigmoid(o + self.peep[2] * c) * torch.tanh(c)
        return frames[:, -1] + self.out(h)


def weather(rng):
    return Weather(), {"frames": torch.stack([_image(rng, 2, 12, 2) for _ in range(3)], 1)}


class Shuffled(nn.Module):
    """Halves of the channels go apart and are shuffled together; blurred before they are made smaller; a linear layer over the flattened rest."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16)
        self.a, self.b, self.c = (nn.ModuleList(m(i) for i in range(2)) for m in (lambda i: nn.Conv2d(8, 8, 1), lambda i: nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), lambda i: nn.Conv2d(8, 8, 1)))
        self.norms, self.grouped = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2)), nn.Conv2d(16, 24, 3, 2, 1, groups=4)
        self.register_buffer("blur", (torch.tensor([1.0, 2, 1])[:, None] * torch.tensor([1.0, 2, 1]) / 16).view(1, 1, 3, 3).repeat(16, 1, 1, 1))
        self.last = nn.Linear(24 * 16, 9)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        for a, b, c, norm in zip(self.a, self.b, self.c, self.norms):
            left, right = x.chunk(2, 1)
            right = F.relu(c(norm(b(F.relu(a(right))))))
            x = torch.cat((left, right), 1)
            n, _, h, w = x.shape
            x = x.view(n, 2, 8, h, w).transpose(1, 2).reshape(n, 16, h, w)
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.blur, stride=2, groups=16)
        return self.last(F.hardswish(self.grouped(x)).flatten(1))


def shuffled(rng):
    return Shuffled(), {"picture": _image(rng)}


class Mixer(nn.Module):
    """Two towers, tokens mixed by layers over places with affine scales, results compared by cosine and a learned temperature."""

    def __init__(self, width=28):
        super().__init__()
        self.patch, self.words, self.places = nn.Conv2d(3, width, 8, 8), nn.Embedding(120, width), nn.Parameter(torch.zeros(9, width))
        self.gain, self.shift, self.scale = (nn.Parameter(torch.zeros(2, width)) for _ in range(3))
        self.across, self.up, self.down = nn.ModuleList(nn.Linear(n, n) for n in (16, 9)), nn.ModuleList(nn.Linear(width, 56) for _ in range(2)), nn.ModuleList(nn.Linear(56, width) for _ in range(2))
        self.see, self.read, self.temperature = nn.Linear(width, 20, bias=False), nn.Linear(width, 20, bias=False), nn.Parameter(torch.tensor(1.2))

    def mix(self, x, k):
        y = self.gain[k] * x + self.shift[k]
        x = x + self.scale[k] * self.across[k](y.transpose(1, 2)).transpose(1, 2)
        return x + self.down[k](F.relu6(self.up[k](x)))

    def forward(self, picture, ids, lengths):
        a = self.see(self.mix(self.patch(picture).flatten(2).transpose(1, 2), 0).mean(1))
        b = self.mix(self.words(ids) + self.places, 1)
        there = (torch.arange(ids.shape[1])[None] < lengths[:, None]).to(b.dtype)[..., None]
        b = self.read((b * there).sum(1) / there.sum(1).clamp(min=1))
        a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
        return self.temperature.exp() * a @ b.T, a, b


def mixer(rng):
    return Mixer(), {"picture": _image(rng, 3), "ids": _ids(rng, 120, (3, 9)), "lengths": torch.tensor([9, 6, 4])}


class Memory(nn.Module):
    """A controller that reads and writes a memory by content and by shifted weights, sharpened."""

    def __init__(self, width=18, slots=8, size=10):
        super().__init__()
        self.control, self.head, self.out = nn.GRUCell(6 + size, width), nn.Linear(width, 3 * size + 1 + 1 + 3 + 1), nn.Linear(width + size, 5)
        self.start, self.slots, self.size = nn.Parameter(torch.zeros(slots, size)), slots, size

    def forward(self, x):
        b = x.shape[0]
        memory, read = self.start.expand(b, -1, -1), x.new_zeros(b, self.size)
        h, weights, results = x.new_zeros(b, 18), x.new_full((b, self.slots), 1 / self.slots), []
        for t in range(x.shape[1]):
            h = self.control(torch.cat((x[:, t], read), -1), h)
            key, erase, add, strength, gate, shift, sharp = self.head(h).split([self.size, self.size, self.size, 1, 1, 3, 1], -1)
            alike = F.cosine_similarity(memory, key[:, None], -1, 1e-6)
            content = torch.softmax(F.softplus(strength) * alike, -1)
            weights = torch.sigmoid(gate) * content + (1 - torch.sigmoid(gate)) * weights
            s = torch.softmax(shift, -1)
            weights = s[:, :1] * torch.roll(weights, 1, -1) + s[:, 1:2] * weights + s[:, 2:] * torch.roll(weights, -1, -1)
            weights = weights ** (1 + F.softplus(sharp))
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-6)
            memory = memory * (1 - weights[..., None] * torch.sigmoid(erase)[:, None]) + weights[..., None] * torch.tanh(add)[:, None]
            read = (weights[:, None] @ memory).squeeze(1)
            results.append(self.out(torch.cat((h, read), -1)))
        return torch.stack(results, 1), memory


def memory(rng):
    return Memory(), {"x": _normal(rng, 3, 3, 6)}


class Hybrid(nn.Module):
    """Gated delta rule step by step, and experts of which the best two are fetched and run, weights normed after the choice."""

    def __init__(self, width=24, experts=6, hidden=20):
        super().__init__()
        self.embed, self.norms = nn.Embedding(140, width), nn.ParameterList(nn.Parameter(torch.ones(width)) for _ in range(3))
        self.qkv, self.beta, self.alpha, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, 2), nn.Linear(width, 2), nn.Linear(width, width, bias=False)
        self.conv, self.router = nn.Conv1d(3 * width, 3 * width, 3, groups=3 * width, bias=False), nn.Linear(width, experts, bias=False)
        self.correction, self.gate_up, self.down = nn.Parameter(torch.zeros(experts)), nn.Parameter(torch.zeros(experts, width, 2 * hidden)), nn.Parameter(torch.zeros(experts, hidden, width))

    def norm(self, x, k):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.norms[k]

    def delta(self, x):
        b, s, w = x.shape
        q, k, v = (t.reshape(b, s, 2, -1) for t in F.silu(self.conv(F.pad(self.qkv(x).transpose(1, 2), (2, 0))).transpose(1, 2)).chunk(3, -1))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        write, keep = torch.sigmoid(self.beta(x))[..., None], torch.exp(-F.softplus(self.alpha(x)))[..., None, None]
        state, out = x.new_zeros(b, 2, w // 2, w // 2), []
        for t in range(s):
            state = state * keep[:, t]
            old = (state * k[:, t, :, :, None]).sum(-2)
            state = state + k[:, t, :, :, None] * ((v[:, t] - old) * write[:, t])[:, :, None]
            out.append((state * q[:, t, :, :, None]).sum(-2))
        return self.out(torch.stack(out, 1).reshape(b, s, w))

    def experts(self, x):
        score = torch.sigmoid(self.router(x))
        which = (score + self.correction).topk(2, -1)[1]
        weight = score.gather(-1, which)
        weight = weight / (weight.sum(-1, keepdim=True) + 1e-9) * 1.5
        gate, up = (x[:, :, None, None] @ self.gate_up[which]).squeeze(-2).chunk(2, -1)
        y = ((F.silu(gate) * up)[..., None, :] @ self.down[which]).squeeze(-2)
        return (y * weight[..., None]).sum(-2)

    def forward(self, ids):
        x = self.embed(ids)
        x = x + self.delta(self.norm(x, 0))
        x = x + self.experts(self.norm(x, 1))
        return self.norm(x, 2) @ self.embed.weight.T


def hybrid(rng):
    return Hybrid(), {"ids": _ids(rng, 140, (2, 6))}


class Stereo(nn.Module):
    """Depth from two pictures: shifted and compared, convolutions over space and shift, the mean shift by a softmax."""

    def __init__(self):
        super().__init__()
        self.see, self.norm = nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8)
        self.cost, self.last = nn.Conv3d(8, 8, 3, 1, 1), nn.Conv3d(8, 1, 3, 1, 1)

    def forward(self, left, right):
        a, b = (F.relu(self.norm(self.see(x))) for x in (left, right))
        volume = torch.stack([(a - F.pad(b, (d, 0))[..., : b.shape[-1]]).abs() for d in range(4)], 2)
        volume = F.relu(self.cost(volume)) + volume
        share = torch.softmax(-self.last(volume).squeeze(1), 1)
        return (share * torch.arange(4.0).view(1, 4, 1, 1)).sum(1)


def stereo(rng):
    left = _image(rng, 2, 16)
    return Stereo(), {"left": left, "right": torch.roll(left, -2, -1) + 0.05}


class Autoregressive(nn.Module):
    """A masked network gives each number's shift and scale from those before it; turned between layers; the log density."""

    def __init__(self, size=8, hidden=32):
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList((nn.Linear(size, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 2 * size))) for _ in range(2))
        order, middle = torch.arange(size), torch.arange(hidden) % (size - 1)
        for name, mask in (("first", middle[:, None] >= order), ("second", middle[:, None] >= middle), ("third", order.repeat(2)[:, None] > middle)):
            self.register_buffer(name, mask.float())
        self.turn = nn.Parameter(torch.zeros(size, size))

    def forward(self, x):
        total = 0
        for k, (a, b, c) in enumerate(self.layers):
            h = torch.tanh(F.linear(x, a.weight * self.first, a.bias))
            h = torch.tanh(F.linear(h, b.weight * self.second, b.bias))
            shift, scale = F.linear(h, c.weight * self.third, c.bias).chunk(2, -1)
            scale = 2 * torch.tanh(scale / 2)
            x = (x - shift) * torch.exp(-scale)
            total = total - scale.sum(-1)
            x = x.flip(-1) if k == 0 else x @ (torch.eye(8) + torch.tril(self.turn, -1))
        return -0.5 * (x.square() + math.log(2 * math.pi)).sum(-1) + total, x


def autoregressive(rng):
    return Autoregressive(), {"x": _normal(rng, 10, 8)}


BUILDERS = {f.__name__: f for f in (recommender, points, spectral, flow, upscaler, mixture, capsules, codes, listener, chain, sparse, tracker, centres, forecast, waves, retention, hyper, atoms,
                                    translator, weather, shuffled, mixer, memory, hybrid, stereo, autoregressive)}
