"""Where a recording was made: the header of its trace, and the lines of the user's program."""

from __future__ import annotations

import os
import platform
import sys
from datetime import datetime, timezone
from types import FrameType
from typing import Any, Optional

import torch

from . import _isotrace
from ._arguments import class_name

# Frames of these are no lines of the user's.
INSIDE = (os.path.dirname(torch.__file__) + os.sep, os.path.dirname(__file__) + os.sep)


def location() -> Optional[str]:
    """The innermost line of the user's program that is running, as `file:line`."""
    frame: Optional[FrameType] = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(INSIDE) and not file.startswith("<"):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def header(model: torch.nn.Module, keeps: str, source: Optional[str]) -> dict[str, Any]:
    """The first record of a trace: versions, the device, and flags that decide how exactly it computes."""
    first = next(iter(model.parameters()), None)
    device = "cpu" if first is None else str(first.device)
    kind = device.split(":")[0]
    try:
        autocast = str(torch.get_autocast_dtype(kind)).removeprefix("torch.") if torch.is_autocast_enabled(kind) else "off"
    except RuntimeError:
        autocast = "off"
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    if torch.version.cuda:
        versions["cuda"] = torch.version.cuda
    if "transformers" in sys.modules:
        versions["transformers"] = sys.modules["transformers"].__version__
    if first is not None and kind == "cuda":
        device += f" ({torch.cuda.get_device_name(first.device)})"
    else:
        device += f" ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
    return {
        "producer": {"name": "isotrace.torch", "version": _isotrace.__version__},
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "source": source or class_name(model),
        "versions": versions,
        "device": device,
        "flags": {
            "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
            "tf32_convolution": torch.backends.cudnn.allow_tf32,
            "autocast": autocast,
            "training": model.training,
            "gradients": torch.is_grad_enabled(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "threads": torch.get_num_threads(),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
        },
        "keeps": keeps,
    }
