"""Stock networks of torchvision, timm and transformers at real width, with random weights.

`EVERY` names them, `library:name` each, with `@size` where a picture is not 224 wide; any other name that a library of
pictures knows can be given as well. Language models are cut to a few layers and some thousand words: their widths and
heads are what they are.
"""
import torch

VISION = """mobilenet_v3_small efficientnet_b0 efficientnet_v2_s convnext_tiny swin_v2_t densenet121 regnet_y_400mf
    shufflenet_v2_x1_0 googlenet inception_v3 squeezenet1_1 mnasnet1_0 vgg11 resnet50""".split()
TIMM = """mobilevit_s@256 coat_lite_mini levit_128s maxvit_tiny_tf_224 edgenext_small crossvit_9_240@240
    xcit_nano_12_p16_224 beit_base_patch16_224 efficientformer_l1 hrnet_w18_small nfnet_f0@192 resmlp_12_224 mixer_b16_224
    poolformer_s12 ghostnet_100 repvgg_a0 res2net50_26w_4s dla34 cspdarknet53 skresnet18 resnest14d tinynet_a
    mobilevitv2_050@256 fastvit_t8@256 repvit_m1_0 efficientvit_b0 pvt_v2_b0 twins_svt_small gcvit_xxtiny davit_tiny
    hiera_tiny_224 volo_d1_224 cait_xxs24_224 visformer_tiny convit_tiny tnt_s_patch16_224 nest_tiny_jx
    inception_next_tiny hgnet_tiny rexnet_100 eca_nfnet_l0 lambda_resnet26t@256 halonet26t@256 botnet26t_256@256
    starnet_s1 mambaout_femto tiny_vit_5m_224 eva02_tiny_patch14_224 deit3_small_patch16_224 focalnet_tiny_srf
    mobilenetv4_conv_small vit_relpos_small_patch16_224 swinv2_cr_tiny_ns_224 efficientformerv2_s0 mobileone_s0
    sequencer2d_s convmixer_768_32 regnetz_b16 gmlp_s16_224 crossvit_tiny_240@240""".split()

# What decoders share, and what those with grouped keys do besides.
DECODER = dict(
    hidden_size=1024, intermediate_size=2816, num_hidden_layers=4, num_attention_heads=16, vocab_size=8000, use_cache=False
)
GROUPED = DECODER | dict(num_key_value_heads=4)
SPECIAL = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
SHARED = dict(
    hidden_size=768, num_hidden_layers=4, num_attention_heads=12, intermediate_size=3072, vocab_size=8000
)

# What a model is given, its family as transformers spells it, the suffix of its class, and what its configuration says.
LANGUAGE = {
    "bert": ("words", "Bert", "Model", {}),
    "roberta": ("words", "Roberta", "Model", {}),
    "distilbert": ("words", "DistilBert", "Model", {}),
    "albert": ("words", "Albert", "Model", SHARED | dict(num_hidden_layers=6)),
    "debertav2": ("words", "DebertaV2", "Model", SHARED | dict(relative_attention=True, pos_att_type=["c2p", "p2c"])),
    "electra": ("words", "Electra", "Model", {}),
    "mpnet": ("words", "MPNet", "Model", dict(num_hidden_layers=6)),
    "roformer": ("words", "RoFormer", "Model", dict(num_hidden_layers=4)),
    "convbert": ("words", "ConvBert", "Model", dict(num_hidden_layers=4)),
    "squeezebert": ("words", "SqueezeBert", "Model", dict(num_hidden_layers=4)),
    "modernbert": ("words", "ModernBert", "Model", SPECIAL | dict(num_hidden_layers=6, vocab_size=8000)),
    "xlmroberta": ("words", "XLMRobertaXL", "Model", SHARED),
    "t5": ("words", "T5", "EncoderModel", {}),
    "gpt2": ("words", "GPT2", "Model", dict(use_cache=False)),
    "opt": ("words", "OPT", "Model", dict(num_hidden_layers=6, vocab_size=8000, use_cache=False)),
    "bloom": ("words", "Bloom", "Model", dict(hidden_size=1024, n_layer=4, n_head=16, vocab_size=8000, use_cache=False)),
    "mpt": ("words", "Mpt", "Model", dict(d_model=1024, n_heads=16, n_layers=4, vocab_size=8000, use_cache=False)),
    "gptj": (
        "words", "GPTJ", "Model", dict(n_embd=1024, n_layer=4, n_head=16, rotary_dim=32, vocab_size=8000, use_cache=False)
    ),
    "falcon": (
        "words", "Falcon", "Model",
        dict(hidden_size=1024, num_hidden_layers=4, num_attention_heads=16, vocab_size=8000, use_cache=False),
    ),
    "neox": ("words", "GPTNeoX", "Model", DECODER),
    "phi": ("words", "Phi", "Model", DECODER),
    "llama": ("words", "Llama", "ForCausalLM", GROUPED | dict(num_hidden_layers=8)),
    "qwen3": ("words", "Qwen3", "ForCausalLM", GROUPED | dict(num_hidden_layers=6, num_key_value_heads=8, head_dim=64)),
    "gemma": ("words", "Gemma", "Model", GROUPED | dict(head_dim=64)),
    "gemma2": ("words", "Gemma2", "Model", GROUPED | dict(head_dim=64)),
    "mistral": ("words", "Mistral", "Model", GROUPED),
    "olmo2": ("words", "Olmo2", "Model", GROUPED),
    "starcoder2": ("words", "Starcoder2", "Model", GROUPED),
    "cohere": ("words", "Cohere", "Model", GROUPED),
    "stablelm": ("words", "StableLm", "Model", GROUPED),
    "granite": ("words", "Granite", "Model", GROUPED),
    "nemotron": ("words", "Nemotron", "Model", GROUPED),
    "mamba": ("ids", "Mamba", "Model", dict(hidden_size=512, num_hidden_layers=4, vocab_size=8000, use_cache=False)),
    "bart": ("ids", "Bart", "Model", dict(encoder_layers=3, decoder_layers=3, vocab_size=8000, use_cache=False)),
    "vit": ("picture", "ViT", "Model", {}),
    "clip": ("picture", "CLIPVision", "Model", {}),
    "segformer": ("picture", "Segformer", "ForSemanticSegmentation", {}),
    "dinov2": ("picture", "Dinov2", "Model", dict(num_hidden_layers=6, image_size=224)),
    "beit": ("picture", "Beit", "Model", dict(num_hidden_layers=6, use_relative_position_bias=True)),
    "siglip": ("picture", "SiglipVision", "Model", dict(num_hidden_layers=6)),
    "swin": ("picture", "Swin", "Model", {}),
    "pvtv2": ("picture", "PvtV2", "Model", {}),
    "levit": ("picture", "Levit", "Model", {}),
    "cvt": ("picture", "Cvt", "Model", {}),
    "glpn": ("picture", "GLPN", "ForDepthEstimation", {}),
    "dpt": (
        "picture", "DPT", "ForDepthEstimation",
        dict(num_hidden_layers=4, image_size=224, backbone_out_indices=[0, 1, 2, 3]),
    ),
    "yolos": ("picture", "Yolos", "Model", dict(num_hidden_layers=4, image_size=[224, 224])),
    "blip": ("picture", "BlipVision", "Model", dict(num_hidden_layers=4, image_size=224)),
    "mobilevit": ("picture", "MobileViT", "Model", {}),
    "efficientnet": ("picture", "EfficientNet", "Model", {}),
    "timesformer": ("film", "Timesformer", "Model", dict(num_hidden_layers=3, num_frames=4)),
    "whisper": ("mel", "Whisper", "Model", {}),
    "wav2vec2": ("wave", "Wav2Vec2", "Model", {}),
    "hubert": ("wave", "Hubert", "Model", dict(num_hidden_layers=6)),
    "sew": ("wave", "SEW", "Model", dict(num_hidden_layers=6)),
    "conformer": ("wave", "Wav2Vec2Conformer", "Model", dict(num_hidden_layers=4)),
    "data2vec": ("wave", "Data2VecAudio", "Model", dict(num_hidden_layers=4)),
    "spectrogram": ("patches", "AST", "Model", dict(num_hidden_layers=4, max_length=256)),
}

EVERY = [f"torchvision:{n}" for n in VISION] + [f"timm:{n}" for n in TIMM] + [f"transformers:{n}" for n in LANGUAGE]


def given(kind):
    """Inputs of a kind, by the names that transformers has for them."""
    ids = torch.randint(0, 1000, (1, 64))
    return {
        "words": {"input_ids": ids, "attention_mask": torch.ones(1, 64, dtype=torch.long)},
        "ids": {"input_ids": ids[:, :16]},
        "picture": {"pixel_values": torch.randn(1, 3, 224, 224)},
        "film": {"pixel_values": torch.randn(1, 4, 3, 224, 224)},
        "mel": {"input_features": torch.randn(1, 80, 3000)},
        "wave": {"input_values": torch.randn(1, 16000)},
        "patches": {"input_values": torch.randn(1, 256, 128)},
    }[kind]


class First(torch.nn.Module):
    """A model of transformers whose inputs have places and whose first output is all there is."""

    def __init__(self, model, keys):
        super().__init__()
        self.model, self.keys = model, keys

    def forward(self, *args):
        return self.model(**dict(zip(self.keys, args)), return_dict=False)[0]


def language(name):
    import transformers

    kind, family, suffix, settings = LANGUAGE[name]
    config = getattr(transformers, f"{family}Config")(**settings)
    config._attn_implementation = "eager"
    inputs = given(kind)
    model = getattr(transformers, family + suffix)(config)
    return First(model.encoder if name == "whisper" else model, list(inputs)), tuple(inputs.values())


def network(name):
    """A network called `library:name`, or `library:name@size of its picture`, and what it is given."""
    library, _, which = name.partition(":")
    if library == "transformers":
        return language(which)
    which, _, size = which.partition("@")
    picture = (torch.randn(1, 3, int(size or 224), int(size or 224)),)
    if library == "torchvision":
        import torchvision

        return getattr(torchvision.models, which)(weights=None), picture
    import timm

    return timm.create_model(which, pretrained=False), picture


def spread(model):
    """Norms and biases off the numbers they begin with."""
    seeded = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p.add_(torch.randn(p.shape, generator=seeded) * 0.05)
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.add_(torch.randn(b.shape, generator=seeded) * 0.1)
            if name.endswith("running_var"):
                b.mul_(torch.rand(b.shape, generator=seeded) + 0.5)
