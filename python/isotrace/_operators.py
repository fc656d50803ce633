"""Every call of an operator of ATen, with its arguments: a dispatch mode below autograd."""

from __future__ import annotations

from typing import Any, Optional, Union

import torch
from torch._guards import CompileContext
from torch.utils._python_dispatch import TorchDispatchMode

from ._memory import short
from ._values import Values

# Calls between two sweeps for storages that are gone.
SWEEP = 4096
# Running statistics are written in training, though the schema does not say so.
_HIDDEN = {name: ("running_mean", "running_var") for name in ("aten::native_batch_norm", "aten::cudnn_batch_norm")}


class Operators(TorchDispatchMode):
    """Sees every call of an operator below autograd."""

    def __init__(self, values: Values):
        super().__init__()
        self.values, self._calls = values, 0

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """torch.compile goes on inside a recording: else the recorded run would not be the compiled one."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        values, schema = self.values, func._schema
        # What a compiler tries out is not run.
        if values.busy or CompileContext.try_get() is not None:
            return func(*args, **kwargs)
        self._calls += 1
        if self._calls % SWEEP == 0:
            gone = [key for key, memory in values.memories.items() if memory.alive.expired()]
            for key in gone:
                del values.memories[key]
        inputs: list[Optional[int]] = []
        attributes: dict[str, Any] = {}
        written: list[torch.Tensor] = []
        hidden: list[torch.Tensor] = []
        aliases = False
        for at, argument in enumerate(schema.arguments):
            given = args[at] if at < len(args) else kwargs.get(argument.name, argument.default_value)
            if argument.alias_info is not None:
                aliases = True
                if argument.alias_info.is_write:
                    written += [t for t in (given if isinstance(given, (list, tuple)) else [given]) if t is not None]
            elif schema.name in _HIDDEN and argument.name in _HIDDEN[schema.name] and given is not None:
                hidden.append(given)
            kind = str(argument.type)
            if isinstance(given, torch.Tensor):
                inputs.append(values.value(given))
            elif "Tensor" in kind and isinstance(given, (list, tuple)):
                inputs += [None if t is None else values.value(t) for t in given]
            elif "Tensor" in kind and given is None:
                inputs.append(None)
            else:
                found = setting(given)
                if found is not None:
                    attributes[argument.name] = found
        if attributes.get("training") == {"bool": True}:
            written += hidden
        out = func(*args, **kwargs)
        results = [out] if isinstance(out, torch.Tensor) else list(out) if isinstance(out, (list, tuple)) else []
        flat = [t for r in results for t in (r if isinstance(r, (list, tuple)) else [r])]
        if not written and not any(isinstance(t, torch.Tensor) for t in flat):
            return out
        name = func.__name__
        scope = next((path for path, *_ in reversed(values.stack) if path), "")
        label = f"{scope}/{schema.name.split('::')[-1]}" if scope else schema.name.split("::")[-1]
        before = {t.untyped_storage()._cdata for t in written}
        for t in written:
            values.memory(t).version += 1
        outputs: list[Optional[int]] = []
        fresh: dict[int, int] = {}
        for t in flat:
            if not isinstance(t, torch.Tensor):
                outputs.append(None)
            elif id(t) in fresh:
                outputs.append(fresh[id(t)])
            else:
                # What was written is no view of what was there before.
                view = aliases and t.layout is torch.strided and t.untyped_storage()._cdata not in before
                fresh[id(t)] = values.write(t, label, "intermediate", view=view)
                outputs.append(fresh[id(t)])
        more = [t for t in written if id(t) not in fresh]
        for t in more:
            fresh[id(t)] = values.write(t, label, "intermediate")
            outputs.append(fresh[id(t)])
        values.node(schema.name.split("::")[0], name, inputs, outputs, attributes)
        for t in written:
            if t.layout is torch.strided:
                values.written(t, fresh[id(t)])
        return out


def setting(given: Any) -> Optional[dict[str, Any]]:
    """An argument that is no tensor, as a setting of a node."""
    if isinstance(given, bool):
        return {"bool": given}
    if isinstance(given, (int, torch.SymInt)):
        return {"int": int(given)}
    if isinstance(given, (float, torch.SymFloat)):
        return {"float": _number(float(given))}
    if isinstance(given, str):
        return {"string": given}
    if isinstance(given, torch.dtype):
        return {"dtype": short(given)}
    if isinstance(given, (list, tuple)):
        if all(isinstance(x, bool) for x in given) and given:
            return {"bools": list(given)}
        if all(isinstance(x, (int, torch.SymInt)) for x in given):
            return {"ints": [int(x) for x in given]}
        if all(isinstance(x, (int, float)) for x in given):
            return {"floats": [_number(float(x)) for x in given]}
    # Devices, layouts and memory formats do not change what is computed.
    return None


def _number(x: float) -> Union[float, str]:
    return x if x == x and abs(x) != float("inf") else "nan" if x != x else "inf" if x > 0 else "-inf"
