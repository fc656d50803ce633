#!/usr/bin/env python3
"""Networks of real size as harmless rewrites: both exporters of PyTorch, and ONNX Runtime's optimiser on each.

usage: sizes.py BINARY [--keep FOLDER] [NAME ...]

Stock networks of torchvision, timm and transformers, with random weights and norms off their defaults, each exported
twice (dynamo, script), each export optimised twice (extended, all; the latter in blocks of channels). Four pairs of a
network are held against each other; all compute the same, so a verdict other than identical or equivalent is a false
alarm, and its files are kept where a folder is given. Seconds are those of whole processes. Without names every network
is taken: an hour on two cores, and some GB at a time in the folder for temporary files.

The small networks of the other sets have widths of whole blocks and few values that resemble each other; what comes of
18 or 440 channels, and of streams that hardly change from layer to layer, shows here.
"""
import argparse
import contextlib
import json
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import onnxruntime
import torch

LEVELS = {
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
PAIRS = [("dynamo", "script"), ("dynamo", "dynamo_all"), ("script", "script_extended"), ("dynamo_extended", "script_all")]

VISION = """mobilenet_v3_small efficientnet_b0 convnext_tiny swin_v2_t densenet121 regnet_y_400mf shufflenet_v2_x1_0
    googlenet mnasnet1_0 vgg11 resnet50""".split()
TIMM = """mobilevit_s@256 coat_lite_mini levit_128s maxvit_tiny_tf_224 edgenext_small crossvit_9_240@240
    xcit_nano_12_p16_224 beit_base_patch16_224 efficientformer_l1 hrnet_w18_small nfnet_f0@192 resmlp_12_224 mixer_b16_224
    poolformer_s12 ghostnet_100 repvgg_a0""".split()


class First(torch.nn.Module):
    """A model of transformers whose inputs have places and whose first output is all there is."""

    def __init__(self, model, keys):
        super().__init__()
        self.model, self.keys = model, keys

    def forward(self, *args):
        return self.model(**dict(zip(self.keys, args)), return_dict=False)[0]


def transformers_of(name):
    import transformers as t

    ids, mask = torch.randint(0, 1000, (1, 64)), torch.ones(1, 64, dtype=torch.long)
    words = (["input_ids", "attention_mask"], (ids, mask))
    picture = (["pixel_values"], (torch.randn(1, 3, 224, 224),))
    grouped = dict(hidden_size=1024, intermediate_size=2816, num_attention_heads=16, vocab_size=8000, use_cache=False)
    kinds = {
        "bert": lambda: (t.BertModel, t.BertConfig(), words),
        "roberta": lambda: (t.RobertaModel, t.RobertaConfig(), words),
        "distilbert": lambda: (t.DistilBertModel, t.DistilBertConfig(), words),
        "gpt2": lambda: (t.GPT2Model, t.GPT2Config(use_cache=False), words),
        "llama": lambda: (t.LlamaForCausalLM, t.LlamaConfig(num_hidden_layers=8, num_key_value_heads=4, **grouped), words),
        "qwen3": lambda: (
            t.Qwen3ForCausalLM, t.Qwen3Config(num_hidden_layers=6, num_key_value_heads=8, head_dim=64, **grouped), words
        ),
        "vit": lambda: (t.ViTModel, t.ViTConfig(), picture),
        "clip": lambda: (t.CLIPVisionModel, t.CLIPVisionConfig(), picture),
        "segformer": lambda: (t.SegformerForSemanticSegmentation, t.SegformerConfig(), picture),
        "whisper": lambda: (t.WhisperModel, t.WhisperConfig(), (["input_features"], (torch.randn(1, 80, 3000),))),
        "wav2vec2": lambda: (t.Wav2Vec2Model, t.Wav2Vec2Config(), (["input_values"], (torch.randn(1, 16000),))),
        "t5": lambda: (t.T5EncoderModel, t.T5Config(), words),
    }
    if name is None:
        return list(kinds)
    family, config, (keys, args) = kinds[name]()
    config._attn_implementation = "eager"
    model = family(config)
    return First(model.encoder if name == "whisper" else model, keys), args


def network(name):
    """A network called `library:name`, or `library:name@size of its picture`, and what it is given."""
    library, _, which = name.partition(":")
    if library == "transformers":
        return transformers_of(which)
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


def files(name, folder):
    """The exports of a network and what the optimiser makes of them, those that come about."""
    torch.manual_seed(0)
    model, args = network(name)
    spread(model.eval())
    names = [f"input_{i}" for i in range(len(args))]
    exporters = {
        "dynamo": dict(dynamo=True, verbose=False, external_data=False),
        "script": dict(dynamo=False, opset_version=17),
    }
    made = {}
    for exporter, settings in exporters.items():
        path = folder / f"{exporter}.onnx"
        try:
            with torch.no_grad(), contextlib.redirect_stdout(sys.stderr):
                torch.onnx.export(model, args, path, input_names=names, **settings)
        except Exception as error:  # whatever an exporter fails with
            print(f"{name:34} {exporter}: not exported: {str(error).splitlines()[0][:80]}")
            continue
        made[exporter] = path
        for level, setting in LEVELS.items():
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = setting
            options.log_severity_level = 4
            made[f"{exporter}_{level}"] = folder / f"{exporter}_{level}.onnx"
            options.optimized_model_filepath = str(made[f"{exporter}_{level}"])
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return made


def main():
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--keep", type=Path, help="where the files of what is called divergent are kept")
    parser.add_argument("names", nargs="*", metavar="NAME", help="library:name, as torchvision:resnet50")
    given = parser.parse_intermixed_args()
    every = [f"torchvision:{n}" for n in VISION] + [f"timm:{n}" for n in TIMM]
    every += [f"transformers:{n}" for n in transformers_of(None)] if not given.names else []
    wrong = 0
    for name in given.names or every:
        with tempfile.TemporaryDirectory() as place:
            made = files(name, Path(place))
            for a, b in PAIRS:
                if a not in made or b not in made:
                    continue
                start = time.perf_counter()
                report = Path(place) / "report.json"
                command = [given.binary, "diff", made[a], made[b], "--json", report]
                done = subprocess.run(command, capture_output=True, text=True)
                seconds = time.perf_counter() - start
                verdict = json.loads(report.read_text())["verdict"] if report.exists() else done.stderr.strip()[-120:]
                report.unlink(missing_ok=True)
                fine = verdict in ("identical", "equivalent")
                wrong += not fine
                print(f"{name:34} {a + ' ~ ' + b:30} {seconds:7.1f} s  {verdict}{'' if fine else '   WRONG'}", flush=True)
                if not fine and given.keep:
                    kept = given.keep / name.replace(":", "_")
                    kept.mkdir(parents=True, exist_ok=True)
                    for path in (made[a], made[b]):
                        (kept / path.name).write_bytes(path.read_bytes())
    print(f"{wrong} false")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
