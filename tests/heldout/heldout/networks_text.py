"""Small text networks. Each builder returns (module, inputs): a torch module with plain tensors in and out, and named inputs."""
import torch


def _ids(rng, vocab, shape):
    return torch.from_numpy(rng.integers(3, vocab, shape))


def _padding_mask(batch, length, short):
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[-1, length - short:] = 0
    return mask


class Wrapped(torch.nn.Module):
    """Calls a model by keyword and returns the named fields of its result as a tuple."""

    def __init__(self, model, arguments, fields, **fixed):
        super().__init__()
        self.m, self.arguments, self.fields, self.fixed = model, arguments, fields, fixed

    def forward(self, *tensors):
        result = self.m(**dict(zip(self.arguments, tensors)), **self.fixed)
        return tuple(getattr(result, f) for f in self.fields)


def gpt2(rng):
    from transformers import GPT2Config, GPT2Model
    config = GPT2Config(vocab_size=160, n_positions=24, n_embd=48, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2, attn_implementation="eager", use_cache=False)
    net = Wrapped(GPT2Model(config), ["input_ids", "attention_mask"], ["last_hidden_state"])
    return net, {"ids": _ids(rng, 160, (2, 20)), "mask": _padding_mask(2, 20, 4)}


def t5(rng):
    from transformers import T5Config, T5Model
    config = T5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu",
                      relative_attention_num_buckets=16, relative_attention_max_distance=20, use_cache=False, dropout_rate=0.0, attn_implementation="eager")
    net = Wrapped(T5Model(config), ["input_ids", "attention_mask", "decoder_input_ids"], ["last_hidden_state", "encoder_last_hidden_state"])
    return net, {"ids": _ids(rng, 128, (2, 18)), "mask": _padding_mask(2, 18, 5), "decoder_ids": _ids(rng, 128, (2, 12))}


def qwen2(rng):
    from transformers import Qwen2Config, Qwen2ForCausalLM
    config = Qwen2Config(vocab_size=144, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                         max_position_embeddings=64, rms_norm_eps=1e-6, use_cache=False, attn_implementation="eager")
    net = Wrapped(Qwen2ForCausalLM(config), ["input_ids", "attention_mask"], ["logits"])
    return net, {"ids": _ids(rng, 144, (2, 20)), "mask": torch.ones(2, 20, dtype=torch.int64)}


def gemma2(rng):
    from transformers import Gemma2Config, Gemma2ForCausalLM
    config = Gemma2Config(vocab_size=144, hidden_size=40, intermediate_size=72, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=12,
                          query_pre_attn_scalar=12, sliding_window=6, attn_logit_softcapping=5.0, final_logit_softcapping=6.0, max_position_embeddings=64,
                          use_cache=False, attn_implementation="eager")
    net = Wrapped(Gemma2ForCausalLM(config), ["input_ids", "attention_mask"], ["logits"])
    return net, {"ids": _ids(rng, 144, (2, 18)), "mask": torch.ones(2, 18, dtype=torch.int64)}


def neox(rng):
    """Rotary positions on half of each head, packed projections with the heads outermost, attention and feed-forward side by side."""
    from transformers import GPTNeoXConfig, GPTNeoXModel
    config = GPTNeoXConfig(vocab_size=144, hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, rotary_pct=0.5, max_position_embeddings=32,
                           use_cache=False, attn_implementation="eager")
    net = Wrapped(GPTNeoXModel(config), ["input_ids", "attention_mask"], ["last_hidden_state"])
    return net, {"ids": _ids(rng, 144, (2, 18)), "mask": _padding_mask(2, 18, 3)}


def distilbert(rng):
    from transformers import DistilBertConfig, DistilBertModel
    config = DistilBertConfig(vocab_size=160, max_position_embeddings=24, n_layers=2, n_heads=4, dim=48, hidden_dim=96, dropout=0.0, attention_dropout=0.0, attn_implementation="eager")
    net = Wrapped(DistilBertModel(config), ["input_ids", "attention_mask"], ["last_hidden_state"])
    return net, {"ids": _ids(rng, 160, (2, 20)), "mask": _padding_mask(2, 20, 6)}


def cliptext(rng):
    from transformers import CLIPTextConfig, CLIPTextModel
    config = CLIPTextConfig(vocab_size=160, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=20,
                            eos_token_id=2, bos_token_id=1, pad_token_id=0, attn_implementation="eager")
    net = Wrapped(CLIPTextModel(config), ["input_ids"], ["last_hidden_state", "pooler_output"])
    ids = _ids(rng, 160, (2, 20))
    ids[0, -1], ids[1, 13] = 2, 2
    return net, {"ids": ids}


class Tagger(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(120, 24)
        self.lstm = torch.nn.LSTM(24, 20, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = torch.nn.GRU(40, 24, batch_first=True)
        self.norm = torch.nn.LayerNorm(24)
        self.classify = torch.nn.Linear(24, 12)

    def forward(self, ids):
        x, _ = self.lstm(self.embed(ids))
        x, last = self.gru(x)
        return torch.log_softmax(self.classify(self.norm(x)), -1), last


def tagger(rng):
    return Tagger(), {"ids": _ids(rng, 120, (2, 16))}


class Cells(torch.nn.Module):
    """A GRU and an LSTM cell unrolled by hand, so that the gates are separate slices and products."""

    def __init__(self, width=24):
        super().__init__()
        self.width = width
        self.inp = torch.nn.Linear(16, 4 * width)
        self.rec = torch.nn.Linear(width, 4 * width)
        self.out = torch.nn.Linear(width, 10)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], self.width)
        c = h
        states = []
        for t in range(4):
            i, f, g, o = (self.inp(x[:, t]) + self.rec(h)).chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            states.append(h)
        return self.out(torch.stack(states, 1)), c


def cells(rng):
    return Cells(), {"x": torch.from_numpy(rng.standard_normal((2, 4, 16)).astype("float32"))}


class Moe(torch.nn.Module):
    """Top-2 routing in its dense form: every expert runs and the router's weights choose."""

    def __init__(self, width=32, experts=4, hidden=48):
        super().__init__()
        self.embed = torch.nn.Embedding(120, width)
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(width) for _ in range(3))
        self.attention = torch.nn.ModuleList(torch.nn.Linear(width, 3 * width) for _ in range(2))
        self.project = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(2))
        self.router = torch.nn.Linear(width, experts, bias=False)
        self.up = torch.nn.Parameter(torch.empty(experts, width, hidden))
        self.down = torch.nn.Parameter(torch.empty(experts, hidden, width))
        self.heads = 4

    def attend(self, x, layer):
        b, s, w = x.shape
        q, k, v = self.attention[layer](x).split(w, -1)
        q, k, v = (t.reshape(b, s, self.heads, w // self.heads).transpose(1, 2) for t in (q, k, v))
        scores = q @ k.transpose(-1, -2) / (w // self.heads) ** 0.5
        mixed = torch.softmax(scores, -1) @ v
        return self.project[layer](mixed.transpose(1, 2).reshape(b, s, w))

    def mix(self, x):
        weights = torch.softmax(self.router(x), -1)
        best, which = torch.topk(weights, 2, -1)
        best = best / best.sum(-1, keepdim=True)
        gates = torch.zeros_like(weights).scatter(-1, which, best)
        hidden = torch.nn.functional.silu(torch.matmul(x.unsqueeze(1), self.up))
        each = torch.matmul(hidden, self.down)
        return (each * gates.permute(0, 2, 1).unsqueeze(-1)).sum(1)

    def forward(self, ids):
        x = self.embed(ids)
        x = x + self.attend(self.norms[0](x), 0)
        x = x + self.mix(self.norms[1](x))
        x = x + self.attend(x, 1)
        return self.norms[2](x)


def moe(rng):
    return Moe(), {"ids": _ids(rng, 120, (2, 16))}


BUILDERS = {f.__name__: f for f in (gpt2, t5, qwen2, gemma2, neox, distilbert, cliptext, tagger, cells, moe)}
