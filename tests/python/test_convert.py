"""What `isotrace convert` writes, read by the tools that it is written for."""

import subprocess
import sys
import zipfile

import pytest

torch = pytest.importorskip("torch")

TYPES = """float64 float32 float16 bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu
    int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool complex64 complex128""".split()
SHAPES = [(), (0,), (3,), (2, 0, 4), (70_000,), (2, 3, 4)]


def bits(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def tensors():
    torch.manual_seed(0)
    found = {}
    for name in TYPES:
        dtype = getattr(torch, name)
        for shape in SHAPES:
            size = torch.empty(0, dtype=dtype).element_size()
            raw = torch.randint(0, 2 if dtype == torch.bool else 256, (*shape, size), dtype=torch.uint8)
            found[f"{name}.{'x'.join(map(str, shape))}"] = raw.view(dtype).reshape(shape)
    return found


def convert(*arguments):
    command = [sys.executable, "-m", "isotrace", "convert", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_pytorch_loads_every_type_that_it_has(tmp_path):
    given = tensors() | {"ключ \"of\" a\nname": torch.arange(3.0)}
    torch.save(given, tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "b.pt")
    loaded = torch.load(tmp_path / "b.pt", weights_only=True)
    assert list(loaded) == list(given)
    for name, tensor in given.items():
        found = loaded[name]
        assert (found.dtype, found.shape, found.stride()) == (tensor.dtype, tensor.shape, tensor.stride()), name
        assert bits(found) == bits(tensor), name
    mapped = torch.load(tmp_path / "b.pt", weights_only=True, mmap=True)
    assert all(bits(mapped[name]) == bits(tensor) for name, tensor in given.items())
    with zipfile.ZipFile(tmp_path / "b.pt") as archive:
        assert archive.testzip() is None
        for entry in archive.infolist():
            with archive.open(entry):
                archive.fp.seek(entry.header_offset + 26)
                name, extra = (int.from_bytes(archive.fp.read(2), "little") for _ in range(2))
            start = entry.header_offset + 30 + name + extra
            assert start % 64 == 0, entry.filename


def test_a_module_takes_its_state_back(tmp_path):
    torch.manual_seed(1)
    one, other = (torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)) for _ in range(2))
    torch.save(one.state_dict(), tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "a.safetensors")
    convert(tmp_path / "a.safetensors", tmp_path / "b.pth")
    other.load_state_dict(torch.load(tmp_path / "b.pth", weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))
