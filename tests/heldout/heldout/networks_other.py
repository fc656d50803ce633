"""A second set of small networks, whose parts the first set lacks; same contract as networks_text."""
import torch
from torch import nn
from torch.nn import functional as F

from .networks_signal import _image
from .networks_text import Wrapped, _ids, _padding_mask


def bart(rng):
    """An encoder and a decoder with attention across, norms behind the residual, embeddings scaled."""
    from transformers import BartConfig, BartModel
    config = BartConfig(vocab_size=128, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64,
                        max_position_embeddings=32, scale_embedding=True, use_cache=False, attn_implementation="eager")
    net = Wrapped(BartModel(config), ["input_ids", "attention_mask", "decoder_input_ids"], ["last_hidden_state", "encoder_last_hidden_state"])
    return net, {"ids": _ids(rng, 128, (2, 18)), "mask": _padding_mask(2, 18, 5), "decoder_ids": _ids(rng, 128, (2, 12))}


def deberta(rng):
    """Attention to contents and to relative positions apart, gathered along diagonals."""
    from transformers import DebertaV2Config, DebertaV2Model
    config = DebertaV2Config(vocab_size=128, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, max_position_embeddings=32, relative_attention=True,
                             position_buckets=8, pos_att_type=["p2c", "c2p"], position_biased_input=False, norm_rel_ebd="layer_norm", type_vocab_size=0)
    return Wrapped(DebertaV2Model(config), ["input_ids", "attention_mask"], ["last_hidden_state"]), {"ids": _ids(rng, 128, (2, 18)), "mask": _padding_mask(2, 18, 4)}


def swin(rng):
    """Windows, shifted by a roll, masked where they wrap; a table of relative positions; patches merged."""
    from transformers import SwinConfig, SwinModel
    config = SwinConfig(image_size=32, patch_size=2, embed_dim=24, depths=[2, 1], num_heads=[2, 4], window_size=4, attn_implementation="eager")
    return Wrapped(SwinModel(config), ["pixel_values"], ["last_hidden_state", "pooler_output"]), {"pixels": _image(rng)}


def bloom(rng):
    """Positions as slopes added to the scores, GELU spelled out, packed projections."""
    from transformers import BloomConfig, BloomModel
    config = BloomConfig(vocab_size=128, hidden_size=48, n_layer=2, n_head=4, use_cache=False, attn_implementation="eager")
    return Wrapped(BloomModel(config), ["input_ids", "attention_mask"], ["last_hidden_state"]), {"ids": _ids(rng, 128, (2, 16)), "mask": _padding_mask(2, 16, 3)}


def phi(rng):
    """Rotary positions on a part of each head, attention and feed-forward side by side, biases everywhere."""
    from transformers import PhiConfig, PhiForCausalLM
    config = PhiConfig(vocab_size=128, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, partial_rotary_factor=0.5, max_position_embeddings=64,
                       use_cache=False, attn_implementation="eager")
    return Wrapped(PhiForCausalLM(config), ["input_ids", "attention_mask"], ["logits"]), {"ids": _ids(rng, 128, (2, 18)), "mask": torch.ones(2, 18, dtype=torch.int64)}


def albert(rng):
    """One layer's weights used by all layers; a small embedding made wider."""
    from transformers import AlbertConfig, AlbertModel
    config = AlbertConfig(vocab_size=128, embedding_size=24, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96, max_position_embeddings=32,
                          attn_implementation="eager")
    return Wrapped(AlbertModel(config), ["input_ids", "attention_mask"], ["last_hidden_state", "pooler_output"]), {"ids": _ids(rng, 128, (2, 18)), "mask": _padding_mask(2, 18, 4)}


def conformer(rng):
    """Half-step feed-forwards, gated convolutions with batch norm, relative positions by a shift."""
    from transformers import Wav2Vec2ConformerConfig, Wav2Vec2ConformerModel
    config = Wav2Vec2ConformerConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, conv_dim=(24, 24), conv_kernel=(10, 3), conv_stride=(5, 4),
                                     num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4, position_embeddings_type="relative", conv_depthwise_kernel_size=5, layerdrop=0.0,
                                     hidden_dropout=0.0, max_source_positions=64)
    sound = torch.from_numpy(rng.standard_normal((2, 400)).astype("float32")).cumsum(-1) * 0.1
    return Wrapped(Wav2Vec2ConformerModel(config), ["input_values"], ["last_hidden_state"]), {"sound": sound - sound.mean(-1, keepdim=True)}


def segformer(rng):
    """Attention whose keys are made fewer by a strided convolution; a decoder that resizes and joins all stages."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation
    config = SegformerConfig(num_encoder_blocks=2, depths=[1, 2], sr_ratios=[4, 2], hidden_sizes=[16, 32], num_attention_heads=[1, 2], patch_sizes=[7, 3], strides=[4, 2],
                             mlp_ratios=[2, 2], decoder_hidden_size=24, num_labels=5)
    return Wrapped(SegformerForSemanticSegmentation(config), ["pixel_values"], ["logits"]), {"pixels": _image(rng)}


class StateSpace(nn.Module):
    """A selective scan of the Mamba kind, its steps written out, with the causal convolution and the gate."""

    def __init__(self, width, state):
        super().__init__()
        self.inward, self.conv = nn.Linear(width, 4 * width, bias=False), nn.Conv1d(2 * width, 2 * width, 4, groups=2 * width, padding=3)
        self.select, self.step = nn.Linear(2 * width, 2 * state + 4, bias=False), nn.Linear(4, 2 * width)
        self.decay, self.through = nn.Parameter(torch.zeros(2 * width, state)), nn.Parameter(torch.zeros(2 * width))
        self.outward, self.state = nn.Linear(2 * width, width, bias=False), state

    def forward(self, x):
        x, gate = self.inward(x).chunk(2, -1)
        x = F.silu(self.conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        dt, b, c = self.select(x).split([4, self.state, self.state], -1)
        dt = F.softplus(self.step(dt))
        keep = torch.exp(-dt[..., None] * torch.exp(self.decay))
        add = (dt * x)[..., None] * b[:, :, None]
        h, out = torch.zeros_like(add[:, 0]), []
        for t in range(x.shape[1]):
            h = keep[:, t] * h + add[:, t]
            out.append((h * c[:, t, None]).sum(-1))
        return self.outward((torch.stack(out, 1) + x * self.through) * F.silu(gate))


class RootNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.weight


class Mamba(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(96, 24)
        self.norms, self.mixers = nn.ModuleList(RootNorm(24) for _ in range(2)), nn.ModuleList(StateSpace(24, 4) for _ in range(2))
        self.last, self.head = RootNorm(24), nn.Linear(24, 96, bias=False)

    def forward(self, ids):
        x = self.embed(ids)
        for norm, mixer in zip(self.norms, self.mixers):
            x = x + mixer(norm(x))
        return self.head(self.last(x))


def mamba(rng):
    return Mamba(), {"ids": _ids(rng, 96, (2, 8))}


class Detector(nn.Module):
    """Cross-stage blocks, pooling pyramid, upsampling and decoding of boxes, as in the YOLO family."""

    def __init__(self):
        super().__init__()
        conv = lambda i, o, k=1, s=1: nn.Sequential(nn.Conv2d(i, o, k, s, (k - 1) // 2, bias=False), nn.BatchNorm2d(o), nn.SiLU())
        self.stem, self.down = conv(3, 12, 6, 2), conv(12, 24, 3, 2)
        self.left, self.right, self.inner, self.join = conv(24, 12), conv(24, 12), conv(12, 12, 3), conv(24, 24)
        self.deep, self.before, self.after = conv(24, 32, 3, 2), conv(32, 16), conv(64, 32)
        self.lateral, self.near, self.far = nn.Conv2d(32, 24, 1), nn.Conv2d(48, 3 * 9, 1), nn.Conv2d(32, 3 * 9, 1)
        self.register_buffer("anchors", torch.tensor([[10.0, 13], [16, 30], [33, 23]]).view(1, 3, 1, 1, 2))

    def decode(self, x, stride):
        n, _, h, w = x.shape
        x = torch.sigmoid(x.view(n, 3, 9, h, w).permute(0, 1, 3, 4, 2))
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        grid = torch.stack((columns, rows), -1).view(1, 1, h, w, 2).to(x.dtype)
        place, size, rest = x.split([2, 2, 5], -1)
        return torch.cat(((place * 2 - 0.5 + grid) * stride, (size * 2) ** 2 * self.anchors, rest), -1).reshape(n, -1, 9)

    def forward(self, x):
        x = self.down(self.stem(x))
        side = self.left(x)
        near = self.join(torch.cat((side + self.inner(side), self.right(x)), 1))
        y = self.before(self.deep(near))
        p = F.max_pool2d(y, 5, 1, 2)
        q = F.max_pool2d(p, 5, 1, 2)
        far = self.after(torch.cat((y, p, q, F.max_pool2d(q, 5, 1, 2)), 1))
        near = torch.cat((F.interpolate(self.lateral(far), scale_factor=2, mode="nearest"), near), 1)
        return torch.cat((self.decode(self.near(near), 4.0), self.decode(self.far(far), 8.0)), 1)


def detector(rng):
    return Detector(), {"pixels": _image(rng)}


class GraphNet(nn.Module):
    """Messages along edges: gathered, weighed by a softmax over each node's edges, scattered back."""

    def __init__(self):
        super().__init__()
        self.embed, self.edge = nn.Linear(6, 24), nn.Linear(3, 24)
        self.source, self.target, self.values = nn.Linear(24, 24), nn.Linear(24, 24), nn.ModuleList(nn.Linear(24, 24) for _ in range(2))
        self.score, self.norm, self.out = nn.Linear(24, 1), nn.BatchNorm1d(24), nn.Linear(24, 5)

    def forward(self, nodes, sources, targets, edges):
        x = F.elu(self.embed(nodes))
        e = torch.tanh(self.edge(edges))
        for value in self.values:
            s = self.score(F.leaky_relu(self.source(x)[sources] + self.target(x)[targets] + e, 0.2)).squeeze(-1)
            s = torch.exp(s - s.amax())
            total = torch.zeros(x.shape[0], dtype=s.dtype).scatter_add(0, targets, s)
            messages = value(x)[sources] * (s / total[targets]).unsqueeze(-1)
            x = x + F.elu(torch.zeros_like(x).scatter_add(0, targets.unsqueeze(-1).expand_as(messages), messages))
            x = self.norm(x)
        return torch.log_softmax(self.out(x), -1)


def graphnet(rng):
    nodes, edges = 14, 40
    targets = torch.from_numpy(rng.permutation([*range(nodes), *rng.integers(0, nodes, edges - nodes)]))
    return GraphNet(), {"nodes": torch.from_numpy(rng.standard_normal((nodes, 6)).astype("float32")), "sources": torch.from_numpy(rng.integers(0, nodes, edges)),
                        "targets": targets, "edges": torch.from_numpy(rng.standard_normal((edges, 3)).astype("float32"))}


BUILDERS = {f.__name__: f for f in (bart, deberta, swin, bloom, phi, albert, conformer, segformer, mamba, detector, graphnet)}
