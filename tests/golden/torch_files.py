"""Writes the checkpoints that the tests of crates/trace read, with what PyTorch itself reads from them.

    python tests/golden/torch_files.py crates/trace/tests/golden

needs torch and safetensors. The files are committed; run this again to add one.
"""

import collections
import pathlib
import sys
import warnings

import numpy
import safetensors.torch
import torch

OUT = pathlib.Path(sys.argv[1])
DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64,
]
NEW_DTYPES = [
    torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
]


def numbers(dtype, *shape):
    torch.manual_seed(len(shape))
    return (torch.randn(*shape) * 3).abs().to(dtype)


def views():
    """Tensors that share storages, in every layout that strides can say."""
    base = torch.arange(24, dtype=torch.float32)
    grid = base.reshape(4, 6)
    return {
        "base": base,
        "slice": base[5:9],
        "transposed": grid.t(),
        "column": grid[:, 2],
        "step": base[1::3],
        "broadcast": torch.tensor([1.0, 2.0]).expand(3, 2),
        "permuted": torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
        "channels_last": torch.randn(1, 2, 3, 3).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        "conjugated": torch.tensor([1 + 2j, 3 - 4j]).conj(),
        "imaginary": torch.tensor([1 + 2j, 3 - 4j]).conj().imag,
    }


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(3, 4)
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
        self.tied = self.embed


def flat(value, path=()):
    """The names that isotrace gives: keys and positions joined by points."""
    if isinstance(value, torch.Tensor):
        yield ".".join(path), value
    elif isinstance(value, numpy.ndarray):
        yield ".".join(path), torch.from_numpy(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, path + (str(key),))
    elif isinstance(value, (list, tuple)):
        for at, inner in enumerate(value):
            yield from flat(inner, path + (str(at),))


def write(name, value, expected=None, **how):
    path = OUT / name
    torch.save(value, path, **how)
    expected = dict(flat(value)) if expected is None else expected
    expected = {key: tensor.detach().resolve_conj().resolve_neg().contiguous().clone() for key, tensor in expected.items()}
    safetensors.torch.save_file(expected, path.with_name(path.name + ".expected.safetensors"))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    old = {"legacy": dict(_use_new_zipfile_serialization=False), "zip": {}}
    for form, how in old.items():
        types = DTYPES + (NEW_DTYPES if form == "zip" else [])
        write(f"types.{form}.pt", {str(d).removeprefix("torch."): numbers(d, 2, 3) for d in types}, **how)
        write(f"views.{form}.pt", views(), **how)
        network = Network()
        optimizer = torch.optim.AdamW(network.parameters())
        network.layers(network.embed(torch.tensor([0, 2]))).sum().backward()
        optimizer.step()
        checkpoint = {
            "model": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": 3,
            "history": [("loss", torch.tensor(0.5)), {"array": numpy.arange(3.0), "note": "ünï"}],
            "parameter": torch.nn.Parameter(torch.ones(2)),
            "counter": collections.Counter("aab"),
        }
        write(f"checkpoint.{form}.pt", checkpoint, **how)
        write(f"alone.{form}.pt", torch.arange(3), {f"alone.{form}": torch.arange(3)}, **how)
    module = Network()
    write("module.zip.pt", module, {**module.state_dict()})
    for protocol in (3, 4, 5):
        write(f"protocol{protocol}.pt", {"a": torch.ones(2), "b": [torch.zeros(1)]}, pickle_protocol=protocol)
    aside = {
        "kept": torch.ones(1),
        "sparse": torch.eye(2).to_sparse(),
        "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "last": torch.ones(2, dtype=torch.int16),
    }
    for form, how in old.items():
        write(f"aside.{form}.pt", aside, {key: aside[key] for key in ("kept", "last")}, **how)
    script = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    torch.jit.save(script, OUT / "script.pt")
    state = {key: value.contiguous() for key, value in script.state_dict().items()}
    safetensors.torch.save_file(state, OUT / "script.pt.expected.safetensors")


main()
