"""What modules are given and give: tensors by the names of a module's parameters and of what holds them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch


def tensors(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors of nested mappings, sequences and dataclasses with their paths; nothing else is looked into."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        fields = getattr(value, "_fields", range(len(value)))
        for key, item in zip(fields, value):
            yield from tensors(item, f"{path}.{key}" if path else str(key))
    elif hasattr(value, "__dataclass_fields__"):
        for key in value.__dataclass_fields__:
            yield from tensors(getattr(value, key, None), f"{path}.{key}" if path else key)


def class_name(x: Any) -> str:
    """The class of an object, with the module that defines it."""
    return f"{type(x).__module__}.{type(x).__qualname__}"


def uncompiled(path: str) -> str:
    """The path of what a compiled module was made of is its own."""
    return ".".join(part for part in path.split(".") if part != "_orig_mod")


@functools.lru_cache(maxsize=None)
def _signature(forward: Any) -> tuple[inspect.Signature, tuple[str, ...], tuple[str, ...]]:
    """Of a module's method: the whole, the names that positions may have, and every name; names without the module's."""
    signature = inspect.signature(forward)
    kinds = [(p.name, p.kind) for p in signature.parameters.values()][1:]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return signature, tuple(n for n, k in kinds if k in positional), tuple(n for n, k in kinds if k not in variadic)


def arguments(module: torch.nn.Module, args: Any, kwargs: Any) -> dict[str, Any]:
    """What a module is given by the names of its parameters."""
    # What torch.compile wraps a module in has no names for what it is given.
    module = getattr(module, "_orig_mod", module)
    try:
        if "forward" in module.__dict__:
            given = dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments)
        else:
            signature, positions, names = _signature(type(module).forward)
            given = dict(zip(positions, args))
            # Calls that a signature does not have to take apart: most, and binding is slow.
            if len(args) <= len(positions) and all(key in names and key not in given for key in kwargs):
                return {name: given[name] if name in given else kwargs[name] for name in names
                        if name in given or name in kwargs}  # fmt: skip
            given = signature.bind(module, *args, **kwargs).arguments
            given.pop(next(iter(given)))
    except (TypeError, ValueError):
        return {**{f"input.{i}": a for i, a in enumerate(args)}, **kwargs}
    named: dict[str, Any] = {}
    for name, value in given.items():
        if name == "kwargs" and isinstance(value, dict):
            named.update(value)
        else:
            named[name] = value
    return named
