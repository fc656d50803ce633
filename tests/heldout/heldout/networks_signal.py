"""Small networks for images and sound; same contract as networks_text."""
import torch
from torch import nn
from torch.nn import functional as F

from .networks_text import Wrapped


def _image(rng, batch=2, size=32, channels=3):
    """A smooth field plus noise: neighbouring pixels are alike, as in pictures."""
    coarse = torch.from_numpy(rng.standard_normal((batch, channels, size // 4, size // 4)).astype("float32"))
    fine = torch.from_numpy(rng.standard_normal((batch, channels, size, size)).astype("float32"))
    return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False) + 0.3 * fine


def vit(rng):
    from transformers import ViTConfig, ViTModel
    config = ViTConfig(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, image_size=32, patch_size=8, attn_implementation="eager")
    return Wrapped(ViTModel(config), ["pixel_values"], ["last_hidden_state", "pooler_output"]), {"pixels": _image(rng)}


def convnext(rng):
    from transformers import ConvNextConfig, ConvNextModel
    config = ConvNextConfig(hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 2, 1], image_size=32, patch_size=2, layer_scale_init_value=0.7)
    return Wrapped(ConvNextModel(config), ["pixel_values"], ["last_hidden_state", "pooler_output"]), {"pixels": _image(rng)}


def whisper(rng):
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder
    config = WhisperConfig(num_mel_bins=20, d_model=48, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=96, max_source_positions=20, attn_implementation="eager")
    frames = torch.from_numpy(rng.standard_normal((2, 20, 40)).astype("float32"))
    return Wrapped(WhisperEncoder(config), ["input_features"], ["last_hidden_state"]), {"features": frames}


def wav2vec2(rng):
    from transformers import Wav2Vec2Config, Wav2Vec2Model
    config = Wav2Vec2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, conv_dim=(24, 24, 24), conv_kernel=(10, 3, 3), conv_stride=(5, 2, 2),
                            num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4, feat_extract_norm="group", layerdrop=0.0, hidden_dropout=0.0, attn_implementation="eager")
    sound = torch.from_numpy(rng.standard_normal((2, 400)).astype("float32")).cumsum(-1) * 0.1
    return Wrapped(Wav2Vec2Model(config), ["input_values"], ["last_hidden_state"]), {"sound": sound - sound.mean(-1, keepdim=True)}


class SqueezeExcite(nn.Module):
    def __init__(self, width, inner, gate):
        super().__init__()
        self.reduce, self.expand, self.gate = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1), gate

    def forward(self, x):
        s = F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))
        return x * self.gate(self.expand(s))


class Inverted(nn.Module):
    def __init__(self, cin, cout, kernel, stride, act, gate=None):
        super().__init__()
        mid = cin * 3
        self.skip = stride == 1 and cin == cout
        self.expand, self.bn1 = nn.Conv2d(cin, mid, 1, bias=False), nn.BatchNorm2d(mid)
        self.depth, self.bn2 = nn.Conv2d(mid, mid, kernel, stride, kernel // 2, groups=mid, bias=False), nn.BatchNorm2d(mid)
        self.squeeze = SqueezeExcite(mid, 8, gate) if gate else nn.Identity()
        self.shrink, self.bn3 = nn.Conv2d(mid, cout, 1, bias=False), nn.BatchNorm2d(cout)
        self.act = act

    def forward(self, x):
        y = self.act(self.bn1(self.expand(x)))
        y = self.squeeze(self.act(self.bn2(self.depth(y))))
        y = self.bn3(self.shrink(y))
        return x + y if self.skip else y


class Mobile(nn.Module):
    """Blocks of MobileNetV2 (ReLU6), MobileNetV3 (hard swish, hard sigmoid gate) and EfficientNet (SiLU, sigmoid gate)."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(Inverted(16, 16, 3, 1, nn.ReLU6()), Inverted(16, 24, 3, 2, nn.Hardswish(), nn.Hardsigmoid()),
                                    Inverted(24, 24, 5, 1, nn.SiLU(), nn.Sigmoid()), Inverted(24, 24, 3, 1, nn.ReLU6()))
        self.head = nn.Linear(24, 40)
        self.classify = nn.Linear(40, 12)

    def forward(self, x):
        x = self.blocks(F.hardswish(self.bn(self.stem(x))))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.classify(F.hardswish(self.head(x)))


def mobile(rng):
    return Mobile(), {"pixels": _image(rng)}


class Dense(nn.Module):
    """DenseNet-like: batch norm before the convolution (so it stays a node), concatenation, average pooling with a border."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in (16, 24, 32, 16))
        self.convs = nn.ModuleList(nn.Conv2d(c, 8, 3, 1, 1) for c in (16, 24))
        self.shrink = nn.Conv2d(32, 16, 1)
        self.last = nn.Conv2d(16, 24, 3, 1, 2, dilation=2)
        self.classify = nn.Linear(24, 10)

    def forward(self, x):
        x = F.max_pool2d(self.stem(x), 3, 2, 1)
        for norm, conv in zip(self.norms, self.convs):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        x = F.avg_pool2d(self.shrink(F.relu(self.norms[2](x))), 3, 2, 1, count_include_pad=False)
        x = self.last(F.elu(self.norms[3](x)))
        x = x.amax((2, 3)) - x.mean((2, 3))
        return torch.softmax(self.classify(x), -1)


def densenet(rng):
    return Dense(), {"pixels": _image(rng)}


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.down, self.deep = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 24, 3, 2, 1), nn.Conv2d(24, 24, 3, 1, 1)
        self.norm1, self.norm2 = nn.InstanceNorm2d(12, affine=True), nn.InstanceNorm2d(24, affine=True)
        self.norm3 = nn.GroupNorm(4, 24)
        self.pool = nn.AvgPool2d(2)
        self.up1, self.up2 = nn.ConvTranspose2d(24, 24, 4, 2, 1), nn.ConvTranspose2d(24, 12, 3, 2, 1, output_padding=1)
        self.merge1, self.merge2, self.out = nn.Conv2d(48, 24, 3, 1, 1), nn.Conv2d(24, 12, 3, 1, 1), nn.Conv2d(12 + 24, 4, 1)

    def forward(self, x):
        a = F.leaky_relu(self.norm1(self.first(F.pad(x, (1, 1, 1, 1), mode="reflect"))), 0.1)
        b = F.leaky_relu(self.norm2(self.down(a)), 0.1)
        # a border of nothing: one exporter keeps it as a node, the other drops it
        c = torch.tanh(self.norm3(self.deep(F.pad(self.pool(b), (0, 0, 0, 0)))))
        d = F.relu(self.merge1(torch.cat([self.up1(c), b], 1)))
        e = F.relu(self.merge2(torch.cat([self.up2(d), a], 1)))
        f = F.interpolate(c, scale_factor=4, mode="bilinear", align_corners=False) + F.interpolate(b, scale_factor=2, mode="nearest")
        return self.out(torch.cat([e, f], 1))


def unet(rng):
    return UNet(), {"pixels": _image(rng, size=24)}


BUILDERS = {f.__name__: f for f in (vit, convnext, whisper, wav2vec2, mobile, densenet, unet)}
