"""Small networks of the second set, from configurations of less usual models; same contract as networks_text."""
import torch

from .networks_signal import _image
from .networks_text import Wrapped, _ids, _padding_mask


def _causal(name, fields, vocab=136, length=18, padded=0, rng=None, model="ForCausalLM", **settings):
    """A decoder of the usual make; what the configurations share is said here."""
    import transformers
    shared = dict(vocab_size=vocab, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64, use_cache=False,
                  attn_implementation="eager", pad_token_id=0, bos_token_id=1, eos_token_id=2)
    config = getattr(transformers, name + "Config")(**{**shared, **settings})
    net = Wrapped(getattr(transformers, name + model)(config), ["input_ids", "attention_mask"], fields)
    mask = _padding_mask(2, length, padded) if padded else torch.ones(2, length, dtype=torch.int64)
    return net, {"ids": _ids(rng, vocab, (2, length)), "mask": mask}


def mla(rng):
    """Keys and values from one small latent, rotary positions on a part shared by all heads, a router with groups and shared experts."""
    return _causal("DeepseekV3", ["logits"], rng=rng, num_key_value_heads=4, q_lora_rank=24, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=12, v_head_dim=10,
                   moe_intermediate_size=24, n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1, n_group=2, topk_group=1, first_k_dense_replace=1,
                   experts_implementation="batched_mm")


def olmo2(rng):
    """Norms behind the branches, and of queries and keys over all heads at once."""
    return _causal("Olmo2", ["logits"], rng=rng, num_key_value_heads=2)


def cohere(rng):
    """One norm without shift for both branches, rotary positions in pairs, logits multiplied."""
    return _causal("Cohere", ["logits"], rng=rng, num_key_value_heads=2, logit_scale=0.25, use_qk_norm=True)


def glm(rng):
    """Rotary positions in pairs on half of each head; gate and up in one matrix."""
    return _causal("Glm", ["logits"], rng=rng, num_key_value_heads=2, head_dim=12, partial_rotary_factor=0.5)


def stablelm(rng):
    return _causal("StableLm", ["logits"], rng=rng, num_key_value_heads=2, partial_rotary_factor=0.5, use_qkv_bias=True, qk_layernorm=True)


def gemma3(rng):
    """Windows and full attention in turn, each with its own rotary base; queries and keys normed; norms before and behind."""
    return _causal("Gemma3Text", ["last_hidden_state"], model="Model", rng=rng, num_key_value_heads=1, head_dim=12, query_pre_attn_scalar=12, sliding_window=6,
                   layer_types=["sliding_attention", "full_attention"])


def granite(rng):
    """Multipliers on embeddings, residual branches, scores and logits."""
    return _causal("Granite", ["logits"], rng=rng, num_key_value_heads=2, embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.2, logits_scaling=4.0)


def falcon(rng):
    """One head of keys and values for all; attention and feed-forward side by side behind two norms."""
    return _causal("Falcon", ["logits"], rng=rng, num_kv_heads=2, new_decoder_architecture=True, alibi=False, bias=False, num_ln_in_parallel_attn=2)


def gptj(rng):
    from transformers import GPTJConfig, GPTJForCausalLM
    config = GPTJConfig(vocab_size=136, n_positions=32, n_embd=48, n_layer=2, n_head=4, rotary_dim=8, use_cache=False, attn_implementation="eager", bos_token_id=1, eos_token_id=2)
    return Wrapped(GPTJForCausalLM(config), ["input_ids", "attention_mask"], ["logits"]), {"ids": _ids(rng, 136, (2, 16)), "mask": _padding_mask(2, 16, 3)}


def nemotron(rng):
    """Layer norms with 1 + w, squared ReLU without a gate."""
    return _causal("Nemotron", ["logits"], rng=rng, num_key_value_heads=2, partial_rotary_factor=0.5, head_dim=12)


def lfm2(rng):
    """Gated short convolutions and attention in turn."""
    return _causal("Lfm2", ["last_hidden_state"], model="Model", rng=rng, num_key_value_heads=2, num_hidden_layers=3, layer_types=["conv", "full_attention", "conv"],
                   block_multiple_of=8, conv_L_cache=3)


def umt5(rng):
    """A table of relative positions for each layer; encoder alone."""
    from transformers import UMT5Config, UMT5EncoderModel
    config = UMT5Config(vocab_size=128, d_model=40, d_kv=10, d_ff=72, num_layers=2, num_heads=4, relative_attention_num_buckets=16, relative_attention_max_distance=20,
                        dropout_rate=0.0, use_cache=False)
    return Wrapped(UMT5EncoderModel(config), ["input_ids", "attention_mask"], ["last_hidden_state"]), {"ids": _ids(rng, 128, (2, 18)), "mask": _padding_mask(2, 18, 5)}


def xlnet(rng):
    """Relative positions by a shift, sinusoids projected, segments compared."""
    from transformers import XLNetConfig, XLNetModel
    config = XLNetConfig(vocab_size=128, d_model=40, n_layer=2, n_head=4, d_inner=80, use_mems_eval=False, dropout=0.0)
    return Wrapped(XLNetModel(config), ["input_ids", "attention_mask"], ["last_hidden_state"]), {"ids": _ids(rng, 128, (2, 16)), "mask": _padding_mask(2, 16, 4)}


def funnel(rng):
    """The sequence gets shorter by pooling the queries, and longer again for the decoder."""
    from transformers import FunnelConfig, FunnelModel
    config = FunnelConfig(vocab_size=128, block_sizes=[1, 1], num_decoder_layers=1, d_model=40, n_head=4, d_head=10, d_inner=72, hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
    return Wrapped(FunnelModel(config), ["input_ids", "attention_mask"], ["last_hidden_state"]), {"ids": _ids(rng, 128, (2, 16)), "mask": _padding_mask(2, 16, 4)}


def fnet(rng):
    """Tokens mixed by a Fourier transform over places and features."""
    from transformers import FNetConfig, FNetModel
    config = FNetConfig(vocab_size=128, hidden_size=32, num_hidden_layers=2, intermediate_size=64, max_position_embeddings=24, use_tpu_fourier_optimizations=False, tpu_short_seq_length=16)
    return Wrapped(FNetModel(config), ["input_ids"], ["last_hidden_state", "pooler_output"]), {"ids": _ids(rng, 128, (2, 16))}


def convbert(rng):
    """Half of the heads are convolutions whose kernels are computed from the tokens."""
    from transformers import ConvBertConfig, ConvBertModel
    config = ConvBertConfig(vocab_size=128, hidden_size=48, embedding_size=24, num_hidden_layers=2, num_attention_heads=4, head_ratio=2, conv_kernel_size=5, intermediate_size=80,
                            max_position_embeddings=24, num_groups=2)
    return Wrapped(ConvBertModel(config), ["input_ids", "attention_mask"], ["last_hidden_state"]), {"ids": _ids(rng, 128, (2, 16)), "mask": _padding_mask(2, 16, 4)}


def squeezebert(rng):
    """All projections are grouped convolutions of width one."""
    from transformers import SqueezeBertConfig, SqueezeBertModel
    config = SqueezeBertConfig(vocab_size=128, hidden_size=48, embedding_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, max_position_embeddings=24)
    return Wrapped(SqueezeBertModel(config), ["input_ids", "attention_mask"], ["last_hidden_state", "pooler_output"]), {"ids": _ids(rng, 128, (2, 16)), "mask": _padding_mask(2, 16, 4)}


def mobilebert(rng):
    """Bottlenecks, stacked feed-forwards, norms without statistics, three neighbouring embeddings joined."""
    from transformers import MobileBertConfig, MobileBertModel
    config = MobileBertConfig(vocab_size=128, hidden_size=48, embedding_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, intra_bottleneck_size=24,
                              num_feedforward_networks=2, max_position_embeddings=24)
    return Wrapped(MobileBertModel(config), ["input_ids", "attention_mask"], ["last_hidden_state", "pooler_output"]), {"ids": _ids(rng, 128, (2, 16)), "mask": _padding_mask(2, 16, 4)}


def esm(rng):
    """Proteins: rotary positions, embeddings rescaled by the share of masked tokens."""
    from transformers import EsmConfig, EsmModel
    config = EsmConfig(vocab_size=33, mask_token_id=32, pad_token_id=1, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=80, max_position_embeddings=40,
                       position_embedding_type="rotary", token_dropout=True, emb_layer_norm_before=True, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation="eager")
    return Wrapped(EsmModel(config, add_pooling_layer=False), ["input_ids", "attention_mask"], ["last_hidden_state"]), {"ids": _ids(rng, 32, (2, 16)), "mask": _padding_mask(2, 16, 3)}


def perceiver(rng):
    """A few latents look at a long input."""
    from transformers import PerceiverConfig, PerceiverModel
    config = PerceiverConfig(num_latents=6, d_latents=32, d_model=20, num_blocks=1, num_self_attends_per_block=2, num_self_attention_heads=4, num_cross_attention_heads=2,
                             qk_channels=24, v_channels=32, attention_probs_dropout_prob=0.0)
    return Wrapped(PerceiverModel(config), ["inputs"], ["last_hidden_state"]), {"rows": torch.from_numpy(rng.standard_normal((2, 26, 20)).astype("float32"))}


def siglip(rng):
    """A picture pooled by attention from one learned query."""
    from transformers import SiglipVisionConfig, SiglipVisionModel
    config = SiglipVisionConfig(hidden_size=48, intermediate_size=88, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8, attn_implementation="eager")
    return Wrapped(SiglipVisionModel(config), ["pixel_values"], ["last_hidden_state", "pooler_output"]), {"pixels": _image(rng)}


def swinv2(rng):
    """Cosine attention with a temperature, position biases made by a small network, norms behind the branches."""
    from transformers import Swinv2Config, Swinv2Model
    config = Swinv2Config(image_size=32, patch_size=2, embed_dim=24, depths=[2, 1], num_heads=[2, 4], window_size=4)
    return Wrapped(Swinv2Model(config), ["pixel_values"], ["last_hidden_state", "pooler_output"]), {"pixels": _image(rng)}


def hiera(rng):
    """Places in an order of units in which pooling is a maximum over a leading axis."""
    from transformers import HieraConfig, HieraModel
    config = HieraConfig(image_size=[32, 32], embed_dim=16, depths=[1, 2], num_heads=[1, 2], query_stride=[2, 2], num_query_pool=1, masked_unit_size=[4, 4], masked_unit_attention=[True, False],
                         embed_dim_multiplier=2.0, patch_kernel=[7, 7], patch_stride=[4, 4], patch_padding=[3, 3], drop_path_rate=0.0)
    return Wrapped(HieraModel(config), ["pixel_values"], ["last_hidden_state", "pooler_output"]), {"pixels": _image(rng)}


def pvt(rng):
    """Overlapping patches, keys made fewer by a convolution, a depthwise convolution inside the feed-forward."""
    from transformers import PvtV2Config, PvtV2ForImageClassification
    config = PvtV2Config(image_size=32, num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[16, 32], patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2],
                         mlp_ratios=[2, 2], num_labels=7)
    return Wrapped(PvtV2ForImageClassification(config), ["pixel_values"], ["logits"]), {"pixels": _image(rng)}


def levit(rng):
    """Attention with batch norms, biases by offsets, and attention that makes the picture smaller."""
    from transformers import LevitConfig, LevitModel
    config = LevitConfig(image_size=64, hidden_sizes=[32, 48, 64], num_attention_heads=[2, 3, 4], depths=[1, 1, 1], key_dim=[8, 8, 8], mlp_ratio=[2, 2, 2], attention_ratio=[2, 2, 2],
                         down_ops=[["Subsample", 8, 4, 4, 2, 2], ["Subsample", 8, 6, 4, 2, 2]])
    return Wrapped(LevitModel(config), ["pixel_values"], ["last_hidden_state"]), {"pixels": _image(rng, size=64)}


def poolformer(rng):
    """Averages in place of attention, from which the input is taken away; scales on each branch."""
    from transformers import PoolFormerConfig, PoolFormerModel
    config = PoolFormerConfig(depths=[1, 1, 1, 1], hidden_sizes=[16, 24, 32, 40], patch_sizes=[7, 3, 3, 3], strides=[2, 2, 2, 2], padding=[2, 1, 1, 1], mlp_ratio=2.0, layer_scale_init_value=0.6)
    return Wrapped(PoolFormerModel(config), ["pixel_values"], ["last_hidden_state"]), {"pixels": _image(rng, size=48)}


def focalnet(rng):
    """Contexts of growing width, gated and multiplied to the query."""
    from transformers import FocalNetConfig, FocalNetModel
    config = FocalNetConfig(image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], focal_levels=[2, 2], focal_windows=[3, 3])
    return Wrapped(FocalNetModel(config), ["pixel_values"], ["last_hidden_state", "pooler_output"]), {"pixels": _image(rng)}


def beit(rng):
    """Biases by relative position with extra rows for the first token; queries and values have a bias, keys none; scales on each branch."""
    from transformers import BeitConfig, BeitModel
    config = BeitConfig(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=88, image_size=32, patch_size=8, use_relative_position_bias=True,
                        use_shared_relative_position_bias=False, layer_scale_init_value=0.5, out_indices=[1])
    return Wrapped(BeitModel(config), ["pixel_values"], ["last_hidden_state", "pooler_output"]), {"pixels": _image(rng)}


def convnextv2(rng):
    """Depthwise kernels of seven, responses normed over all places."""
    from transformers import ConvNextV2Config, ConvNextV2Model
    config = ConvNextV2Config(hidden_sizes=[16, 24, 32], depths=[1, 1, 1], num_stages=3, image_size=32, patch_size=2)
    return Wrapped(ConvNextV2Model(config), ["pixel_values"], ["last_hidden_state", "pooler_output"]), {"pixels": _image(rng)}


def mobilenet1(rng):
    """Borders as TensorFlow puts them: more behind than in front."""
    from transformers import MobileNetV1Config, MobileNetV1Model
    config = MobileNetV1Config(image_size=32, depth_multiplier=0.25, min_depth=8, tf_padding=True)
    return Wrapped(MobileNetV1Model(config), ["pixel_values"], ["last_hidden_state", "pooler_output"]), {"pixels": _image(rng)}


def wavlm(rng):
    """Relative positions in buckets, gated by what the query says."""
    from transformers import WavLMConfig, WavLMModel
    config = WavLMConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, conv_dim=(24, 24), conv_kernel=(10, 3), conv_stride=(5, 4), num_buckets=16,
                         max_bucket_distance=20, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4, feat_extract_norm="layer", layerdrop=0.0, hidden_dropout=0.0,
                         do_stable_layer_norm=True, apply_spec_augment=False)
    sound = torch.from_numpy(rng.standard_normal((2, 360)).astype("float32")).cumsum(-1) * 0.1
    return Wrapped(WavLMModel(config), ["input_values"], ["last_hidden_state"]), {"sound": sound - sound.mean(-1, keepdim=True)}


def dac(rng):
    """A sound made smaller by strided convolutions with sine activations; encoder alone."""
    from transformers import DacConfig
    from transformers.models.dac.modeling_dac import DacEncoder
    config = DacConfig(encoder_hidden_size=8, downsampling_ratios=[2, 4], decoder_hidden_size=32, n_codebooks=2, codebook_size=16, codebook_dim=4)
    sound = torch.from_numpy(rng.standard_normal((2, 1, 160)).astype("float32")).cumsum(-1) * 0.1
    return DacEncoder(config), {"sound": sound - sound.mean(-1, keepdim=True)}


def patchtst(rng):
    """A series scaled by its own statistics, cut into patches, forecast and scaled back."""
    from transformers import PatchTSTConfig, PatchTSTForPrediction
    config = PatchTSTConfig(num_input_channels=2, context_length=32, patch_length=6, patch_stride=4, d_model=32, num_attention_heads=4, num_hidden_layers=2, ffn_dim=56, prediction_length=6,
                            norm_type="batchnorm", pooling_type="mean", loss="mse", scaling="std", attn_implementation="eager", head_dropout=0.0, ff_dropout=0.0, attention_dropout=0.0)
    series = torch.from_numpy(rng.standard_normal((3, 32, 2)).astype("float32")).cumsum(1) * 0.5 + 2
    return Wrapped(PatchTSTForPrediction(config), ["past_values"], ["prediction_outputs"]), {"series": series}


def dpt(rng):
    """Depth from a picture: features of several layers put back into pictures of several sizes and joined."""
    from transformers import DPTConfig, DPTForDepthEstimation
    config = DPTConfig(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=56, image_size=32, patch_size=8, backbone_out_indices=[0, 1, 2],
                       neck_hidden_sizes=[12, 16, 24], reassemble_factors=[2, 1, 0.5], fusion_hidden_size=16, is_hybrid=False, attn_implementation="eager", neck_ignore_stages=[],
                       out_features=None, readout_type="project")
    return Wrapped(DPTForDepthEstimation(config), ["pixel_values"], ["predicted_depth"]), {"pixels": _image(rng)}




BUILDERS = {f.__name__: f for f in (mla, olmo2, cohere, glm, stablelm, gemma3, granite, falcon, gptj, nemotron, lfm2, umt5, xlnet, funnel, fnet, convbert, squeezebert, mobilebert, esm,
                                    perceiver, siglip, swinv2, hiera, pvt, levit, poolformer, focalnet, beit, convnextv2, mobilenet1, wavlm, dac, patchtst, dpt)}
