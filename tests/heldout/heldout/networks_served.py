"""Small networks of the sixth set, such as are served and converted most; same contract as networks_text."""
import torch
from torch import nn
from torch.nn import functional as F

from .networks_models import _causal
from .networks_signal import _image
from .networks_text import Wrapped, _ids, _padding_mask


def starcoder2(rng):
    """Layer norms and biases around grouped keys, a window, GELU by tanh."""
    return _causal("Starcoder2", ["logits"], rng=rng, num_key_value_heads=2, sliding_window=8, padded=3)


def olmoe(rng):
    """A router whose chosen weights are not made to add up to one; queries and keys normed over all heads."""
    return _causal("Olmoe", ["logits"], rng=rng, num_experts=4, num_experts_per_tok=2, intermediate_size=24, num_key_value_heads=2, experts_implementation="batched_mm")


def gptoss(rng):
    """A sink beside the keys, experts with gate and value interleaved and bounded, windows in turn."""
    return _causal("GptOss", ["logits"], rng=rng, num_local_experts=4, num_experts_per_tok=2, intermediate_size=24, num_key_value_heads=2, head_dim=12, sliding_window=6, experts_implementation="batched_mm")


def persimmon(rng):
    """Squared ReLU, queries and keys by layer norms, half of each head turned, packed projections."""
    return _causal("Persimmon", ["logits"], rng=rng, hidden_act="relu2", partial_rotary_factor=0.5, qk_layernorm=True)


def roberta(rng):
    """Positions counted past what is filled up."""
    from transformers import RobertaConfig, RobertaModel
    config = RobertaConfig(vocab_size=140, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=80, max_position_embeddings=40, pad_token_id=1, attn_implementation="eager")
    ids = _ids(rng, 140, (2, 18))
    ids[1, 13:] = 1
    return Wrapped(RobertaModel(config), ["input_ids", "attention_mask"], ["last_hidden_state", "pooler_output"]), {"ids": ids, "mask": _padding_mask(2, 18, 5)}


def dinov2(rng):
    """A vision transformer with a gain for each branch and a gated feed-forward layer."""
    from transformers import Dinov2Config, Dinov2Model
    config = Dinov2Config(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8, use_swiglu_ffn=True, attn_implementation="eager")
    return Wrapped(Dinov2Model(config), ["pixel_values"], ["last_hidden_state", "pooler_output"]), {"pixels": _image(rng)}


def efficientnet(rng):
    """Inverted bottlenecks with squeeze and excitation, borders on one side."""
    from transformers import EfficientNetConfig, EfficientNetModel
    config = EfficientNetConfig(image_size=32, width_coefficient=1.0, depth_coefficient=1.0, in_channels=[32, 16, 24], out_channels=[16, 24, 32], kernel_sizes=[3, 3, 5], strides=[1, 2, 2], num_block_repeats=[1, 1, 2],
                                expand_ratios=[1, 4, 4], depthwise_padding=[], hidden_dim=1280, depth_divisor=8)
    return Wrapped(EfficientNetModel(config), ["pixel_values"], ["last_hidden_state", "pooler_output"]), {"pixels": _image(rng)}


def videomae(rng):
    """Tubes of a film, places by sines, query and value with biases and key without."""
    from transformers import VideoMAEConfig, VideoMAEModel
    config = VideoMAEConfig(image_size=16, patch_size=8, num_frames=4, tubelet_size=2, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=80, attn_implementation="eager")
    film = torch.from_numpy(rng.standard_normal((2, 4, 3, 16, 16)).astype("float32"))
    return Wrapped(VideoMAEModel(config), ["pixel_values"], ["last_hidden_state"]), {"film": film}


class Reader(nn.Module):
    """Lines of writing: columns of a picture as steps, two recurrent layers both ways, logarithms of probabilities."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(1, 12, 3, padding=1), nn.Conv2d(12, 24, 3, padding=1), nn.Conv2d(24, 24, (4, 1))
        self.lstm, self.gru, self.out = nn.LSTM(24, 20, bidirectional=True), nn.GRU(40, 16, bidirectional=True), nn.Linear(32, 30)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.one(x)), 2, 2)
        x = F.max_pool2d(F.relu(self.two(x)), (2, 2), (2, 1), (0, 1))[..., :14]
        x = F.leaky_relu(self.three(x), 0.1).squeeze(2).permute(2, 0, 1)
        x = self.gru(self.lstm(x)[0])[0]
        return F.log_softmax(self.out(x), -1)


class Warper(nn.Module):
    """A picture bent by a field that is computed from it, what lies outside is dark; hard gates for the channels."""

    def __init__(self, width=16):
        super().__init__()
        self.stem, self.field = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 2, 5, padding=2)
        self.squeeze, self.excite = nn.Conv2d(width, 8, 1), nn.Conv2d(8, width, 1)
        self.mix, self.out = nn.Conv2d(width, 2 * width, 3, padding=1, groups=4), nn.Conv2d(2 * width, 4, 1)
        line = torch.linspace(-1, 1, 24)
        self.register_buffer("grid", torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)[None])

    def forward(self, x):
        x = F.hardswish(self.stem(x))
        field = torch.tanh(self.field(x)).permute(0, 2, 3, 1) * 0.4 + self.grid
        x = F.grid_sample(x, field, mode="bilinear", padding_mode="zeros", align_corners=False)
        x = x * F.hardsigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        x = self.mix(x)
        b, c, h, w = x.shape
        return self.out(F.hardswish(x.view(b, 4, c // 4, h, w).transpose(1, 2).reshape(b, c, h, w)))


class Citations(nn.Module):
    """Messages along edges, divided by the roots of both ends' degrees; gated by what a node had; one number for each graph."""

    def __init__(self, nodes=18, width=32):
        super().__init__()
        self.nodes, self.first = nodes, nn.Linear(10, width)
        self.send, self.keep, self.gate = (nn.ModuleList(nn.Linear(width, width) for _ in range(2)) for _ in range(3))
        self.norms, self.out = nn.ModuleList(nn.LayerNorm(width) for _ in range(2)), nn.Linear(width, 5)

    def forward(self, x, source, target):
        x = F.relu(self.first(x))
        ones = torch.ones(target.shape[0], dtype=x.dtype)
        degree = torch.zeros(self.nodes, dtype=x.dtype).index_add(0, target, ones) + 1
        weight = (degree[source] * degree[target]).rsqrt().unsqueeze(-1)
        for send, keep, gate, norm in zip(self.send, self.keep, self.gate, self.norms):
            sent = torch.zeros_like(x).index_add(0, target, send(x)[source] * weight)
            x = x + norm(torch.sigmoid(gate(x)) * sent + F.relu(keep(x)))
        return self.out(x), self.out(x.mean(0, keepdim=True))


def reader(rng):
    return Reader(), {"line": _image(rng, size=32, channels=1)[:, :, :16]}


def warper(rng):
    return Warper(), {"picture": _image(rng, size=24)}


def citations(rng):
    x = torch.from_numpy(rng.standard_normal((18, 10)).astype("float32"))
    source, target = (torch.from_numpy(rng.integers(0, 18, 50)) for _ in range(2))
    return Citations(), {"x": x, "source": source, "target": target}


BUILDERS = {f.__name__: f for f in (starcoder2, olmoe, gptoss, persimmon, roberta, dinov2, efficientnet, videomae, reader, warper, citations)}
