"""Gives a freshly built network parameters that are spread like trained ones: nothing is exactly zero or one,
a few columns stand out, and attention is far from uniform."""
import torch

NORMS = ("Norm",)


def _normal(rng, like, scale=1.0, shift=0.0):
    return torch.from_numpy(rng.standard_normal(tuple(like.shape)).astype("float32")) * scale + shift


def spread(module, rng, gain=1.25, attention_gain=1.5):
    with torch.no_grad():
        for name, part in module.named_modules():
            kind = type(part).__name__
            for key, p in part.named_parameters(recurse=False):
                if any(n in kind for n in NORMS):
                    # a weight that starts at zero is used as 1 + w
                    centre = 0.0 if kind.startswith("Gemma") or key == "bias" else 1.0
                    p.copy_(_normal(rng, p, 0.2, centre))
                elif "Embedding" in kind or "embed" in key or "token" in key:
                    p.copy_(_normal(rng, p, 0.8))
                elif key.startswith("original0"):  # the magnitude of a weight norm
                    p.copy_(_normal(rng, p, 0.2, 1.0).abs() * 2)
                elif p.dim() < 2:
                    p.copy_(_normal(rng, p, 0.25, 0.5 if "scale" in key or "lambda" in key else 0.0))
                else:
                    fan = p.shape[-2] if kind in ("Conv1D", "Moe") else p[0].numel()
                    g = attention_gain if any(k in name for k in ("q_proj", "k_proj", "q_lin", "k_lin", "query", "key", ".q", ".k", "c_attn", "attention.0", "attention.1")) else gain
                    w = _normal(rng, p, g / fan ** 0.5)
                    w[..., :: max(p.shape[-1] // 3, 2)] *= 1.4
                    p.copy_(w)
            for key, b in part.named_buffers(recurse=False):
                if key == "running_mean":
                    b.copy_(_normal(rng, b, 0.4))
                elif key == "running_var":
                    b.copy_(_normal(rng, b, 0.4).exp())
    return module
