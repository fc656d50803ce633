"""Records what a PyTorch model computes, without changing it.

    with isotrace.torch.record(model, "trace"):
        model(**inputs)
    isotrace.diff("trace", "model.onnx")

At the level "modules", forward hooks keep what each module is given and gives. At the level "operators" (the default,
which includes the other) every call of an ATen operator is kept with its arguments, backward and optimiser too, so that
the graph is known and isotrace can replay each call.
"""

from __future__ import annotations

import functools
import inspect
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import torch
from torch._guards import CompileContext
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from . import _isotrace
from ._array import EXTRA, SHORT

__all__ = ["Recorder", "record"]

# Calls between two sweeps for storages that are gone.
SWEEP = 4096
# Recordings of operators under way, the innermost last.
_ACTIVE: list[Recorder] = []
_INSIDE = (os.path.dirname(torch.__file__) + os.sep, os.path.dirname(__file__) + os.sep)


def _short(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    if name in EXTRA:
        return EXTRA[name][0]
    long = {"complex64": "c64", "complex128": "c128"}
    return SHORT.get(name) or long.get(name, name)


def _tensors(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors of nested mappings, sequences and dataclasses with their paths; nothing else is looked into."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        fields = getattr(value, "_fields", range(len(value)))
        for key, item in zip(fields, value):
            yield from _tensors(item, f"{path}.{key}" if path else str(key))
    elif hasattr(value, "__dataclass_fields__"):
        for key in value.__dataclass_fields__:
            yield from _tensors(getattr(value, key, None), f"{path}.{key}" if path else key)


def _class(x: Any) -> str:
    return f"{type(x).__module__}.{type(x).__qualname__}"


def _elements(t: torch.Tensor, record: dict[str, Any]) -> dict[str, Any]:
    """What the border to Rust is told of a tensor's elements, dense and in C order."""
    if t.device.type != "cpu" or t.is_conj() or t.is_neg() or not t.is_contiguous():
        # Another recording under way does not see it.
        with _disable_current_modes():
            t = t.detach().resolve_conj().resolve_neg().cpu().contiguous()
    size = t.numel() * t.element_size()
    return {"dtype": record["dtype"], "shape": record["shape"], "address": t.data_ptr(), "bytes": size, "owner": t}


def _writes(t: torch.Tensor) -> int:
    """PyTorch's own count of writes."""
    return 0 if t.is_inference() else t._version


def _place(t: torch.Tensor) -> tuple[Any, ...]:
    return t.storage_offset(), tuple(t.shape), tuple(t.stride()), t.dtype, t.is_conj(), t.is_neg()


class _Memory:
    """A storage while it lives: which of its views, as they are now, are which values."""

    def __init__(self, number: int, storage: Any):
        self.number, self.alive, self.version = number, StorageWeakRef(storage), 0
        self.views: dict[tuple[Any, ...], int] = {}
        # The value that what is written through views is put into, and its place.
        self.base: tuple[int, tuple[Any, ...]] | None = None


class Recorder:
    """A recording under way; `with record(...) as recorder` gives it."""

    def __init__(self, model: torch.nn.Module, folder: Any, *, level: str, keeps: str, shard_bytes: int, source: str | None):
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"{type(model).__name__} is no kind of model; expected a torch.nn.Module (wrap a function in one)")
        if level not in ("modules", "operators"):
            raise ValueError(f'level is {level!r}, expected "modules" or "operators"')
        if keeps not in ("data", "digest", "both"):
            raise ValueError(f'keeps is {keeps!r}, expected "data", "digest" or "both"')
        self.model, self.level = model, level
        self._writer = _isotrace.Writer(os.fspath(folder), _header(model, keeps, source), shard_bytes)
        self._memories: dict[int, _Memory] = {}
        self._storages = self._calls = 0
        self._step: int | None = None
        self._steps = 0
        self._stack: list[tuple[str, int, list[int]]] = []
        self._counts: dict[Any, int] = {}
        self._names: dict[tuple[int, tuple[Any, ...]], tuple[str, str]] = {}
        self._tied: dict[str, list[str]] = {}
        self._graph: dict[str, list[int]] = {"inputs": [], "outputs": []}
        self._handles: list[Any] = []
        self._compiled: list[tuple[torch.nn.Module, Any]] = []
        self._watch: Any = None
        self._known: dict[str, int] = {}
        self._before_all: dict[str, int] = {}
        self._stepped: set[str] = set()
        self._mode = _Operators(self) if level == "operators" else None
        self._busy = False
        # Values whose elements were left out, since they follow from others.
        self._views: set[int] = set()

    def _quietly(self, hook: Any) -> Any:
        """What a hook does by itself is no part of what the model computes."""

        def quiet(*args: Any) -> None:
            # What a compiler traces is no run; the calls of what it makes of it are seen, and so is the whole.
            if torch.compiler.is_compiling():
                return
            before, self._busy = self._busy, True
            try:
                if torch.is_grad_enabled():
                    with torch.no_grad():
                        hook(*args)
                else:
                    hook(*args)
            finally:
                self._busy = before

        return quiet

    # Values

    def _memory(self, t: torch.Tensor) -> _Memory:
        storage = t.untyped_storage()
        memory = self._memories.get(storage._cdata)
        if memory is None or memory.alive.expired():
            self._storages += 1
            memory = self._memories[storage._cdata] = _Memory(self._storages, storage)
        return memory

    def _key(self, t: torch.Tensor) -> tuple[Any, ...]:
        """Where a tensor lies; without its operators, PyTorch's own count of writes tells values apart."""
        place = _place(t)
        return place if self._mode else (*place, _writes(t))

    def _describe(self, t: torch.Tensor, name: str, role: str, memory: _Memory | None, more: dict[str, Any]) -> dict[str, Any]:
        record = {"name": name, "role": role, "dtype": _short(t.dtype), "shape": list(t.shape), **more}
        if memory is not None:
            record["storage"] = {"id": memory.number, "version": memory.version, "offset": t.storage_offset()}
            if not t.is_contiguous():
                record["strides"] = list(t.stride())
        if self._step is not None:
            record["step"] = self._step
        if self._stack:
            record["module"], record["call"] = self._stack[-1][:2]
        if t.device.type != "cpu":
            record["device"] = str(t.device)
        return record

    def _write(self, t: torch.Tensor, name: str, role: str, *, view: bool = False, **more: Any) -> int:
        """A new value for a tensor as it is now. Elements of a view follow from those that it looks at."""
        plain = t.layout is torch.strided and t.device.type != "meta" and type(t) in (torch.Tensor, torch.nn.Parameter)
        memory = self._memory(t) if plain else None
        record = self._describe(t, name, role, memory, more)
        if plain and not view and record["dtype"] in _STORED:
            number = self._writer.value(record, _elements(t, record))
        else:
            record["omitted"] = "a view: its elements are those of what it looks at" if view else f"a tensor of {_class(t)}"
            number = self._writer.described(record)
            self._views.add(number)
        if memory is not None:
            key = self._key(t)
            memory.views[key] = number
            if memory.base is None:
                memory.base = (number, key)
        return number

    def _value(self, t: torch.Tensor, name: str | None = None, role: str | None = None, **more: Any) -> int:
        """The value that a tensor is now; a new one where nobody computed it before our eyes."""
        if t.layout is not torch.strided:
            return self._write(t, name or "constant", role or "constant")
        memory, key = self._memory(t), self._key(t)
        known = memory.views.get(key)
        # What the model is given has elements of its own: nothing recorded computes it.
        given = role == "input"
        if known is not None and not (given and known in self._views):
            return known
        own = self._names.get((t.untyped_storage()._cdata, _place(t)))
        if self._mode and memory.base is not None and own is None and not given:
            return self._look(t, memory)
        if own is not None and memory.version == 0:
            name, role = own
        elif name is None:
            name, role = (own[0] if own else "constant"), role or "constant"
        return self._write(t, name, role or "intermediate", **more)

    def _look(self, t: torch.Tensor, memory: _Memory) -> int:
        """A view that no operator made: taken before the recording, or stale since a write through another view."""
        base, (offset, shape, strides, dtype, *_) = memory.base
        first, last = _reach(memory.base[1])
        mine = _reach(_place(t))
        if dtype != t.dtype or mine[0] < first or mine[1] > last:
            return self._write(t, "constant", "constant")
        number = self._write(t, "view", "intermediate", view=True)
        self._node("isotrace", "view", [base], [number], {
            "offset": {"int": t.storage_offset()}, "size": {"ints": list(t.shape)}, "stride": {"ints": list(t.stride())},
            "base_offset": {"int": offset}, "base_size": {"ints": list(shape)}, "base_stride": {"ints": list(strides)},
        })  # fmt: skip
        return number

    def _written(self, t: torch.Tensor, number: int) -> None:
        """Makes `number` what a tensor has become by a write, and lets its neighbours in memory see it."""
        memory, key = self._memory(t), self._key(t)
        base = memory.base
        whole = base is None or base[1] == key or (base[1][3] == t.dtype and _dense(base[1]) and _dense(key)
                                                   and base[1][0] == key[0] and _count(base[1]) == t.numel())  # fmt: skip
        memory.views = {key: number}
        if whole:
            memory.base = (number, key)
            return
        offset, shape, strides, dtype, *_ = base[1]
        if dtype != t.dtype:
            memory.base = None
            return
        with _disable_current_modes():
            around = torch.as_strided(t.detach(), shape, strides, offset)
        after = self._write(around, "written", "intermediate")
        self._node("isotrace", "write", [base[0], number], [after], {
            "offset": {"int": t.storage_offset()}, "size": {"ints": list(t.shape)}, "stride": {"ints": list(t.stride())},
            "base_offset": {"int": offset}, "base_size": {"ints": list(shape)}, "base_stride": {"ints": list(strides)},
        })  # fmt: skip
        memory.base = (after, base[1])

    def _node(self, domain: str, op: str, inputs: list[int | None], outputs: list[int | None], attributes: dict[str, Any]) -> None:
        record: dict[str, Any] = {"name": "", "op": op, "domain": domain, "inputs": inputs, "outputs": outputs}
        if attributes:
            record["attributes"] = attributes
        if self._step is not None:
            record["step"] = self._step
        if self._stack:
            record["scope"], record["call"] = [path for path, *_ in self._stack if path], self._stack[-1][1]
        where = _location()
        if where:
            record["location"] = where
        self._writer.node(record)

    def _named(self, t: torch.Tensor, name: str, role: str, **more: Any) -> int:
        """The same numbers under a name of their own: an output, a gradient."""
        if self._mode is None:
            return self._value(t, name, role, **more)
        source = self._value(t)
        memory = self._memory(t)
        views, base = dict(memory.views), memory.base
        number = self._write(t, name, role, **more)
        memory.views, memory.base = views, base
        self._node("", "Identity", [source], [number], {})
        return number

    # Modules

    def _before(self, path: str) -> Any:
        @self._quietly
        def hook(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
            call = self._writer.reserve_call()
            given = list(_tensors(_arguments(module, args, kwargs)))
            root = not path and not self._stack
            ids = []
            for name, t in given:
                ids.append(self._input(t, name) if root else self._value(t, f"{path}.{name}", "intermediate"))
            self._stack.append((path, call, ids))

        return hook

    def _input(self, t: torch.Tensor, name: str) -> int:
        """What the model reads is given to it, however it came about inside the recording."""
        given = self._graph["inputs"]
        if self._mode is None or t.layout is not torch.strided:
            value = self._value(t, name, "input")
        else:
            known = self._memory(t).views.get(self._key(t))
            own = (t.untyped_storage()._cdata, _place(t)) in self._names
            value = known if known in given else self._value(t) if own else self._write(t, name, "input")
        if value not in given:
            given.append(value)
        return value

    def _after(self, path: str) -> Any:
        @self._quietly
        def hook(module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            while self._stack:
                found, call, given = self._stack.pop()
                if found == path:
                    break
            else:
                return
            root = not self._stack
            ids = []
            for name, t in _tensors(output):
                full = (name or "output") if root else f"{path}.{name}" if name else path
                if root:
                    ids.append(self._named(t, full, "output") if self._mode else self._value(t, full, "output"))
                    self._graph["outputs"].append(ids[-1])
                else:
                    ids.append(self._value(t, full))
                if t.requires_grad:
                    t.register_hook(self._gradient(full, ids[-1]))
            key = (path, self._step)
            index = self._counts.get(key, 0)
            self._counts[key] = index + 1
            record = {"id": call, "module": path, "class": _class(module), "index": index, "inputs": given, "outputs": ids}
            if self._step is not None:
                record["step"] = self._step
            if self._stack:
                record["parent"] = self._stack[-1][1]
            self._writer.call(record)

        return hook

    def _gradient(self, name: str, of: int) -> Any:
        @self._quietly
        def hook(gradient: torch.Tensor | None) -> None:
            if self._handles and gradient is not None:
                self._named(gradient, f"{name}.grad", "gradient", of=of)

        return hook

    # Steps

    @contextmanager
    def step(self, name: str | None = None) -> Iterator[int]:
        """One step of training, or of whatever is repeated: what is recorded inside carries its number."""
        self._step, self._steps = self._steps, self._steps + 1
        record = {"index": self._step} | ({"name": name} if name else {})
        self._writer.step(record | {"event": "begin"})
        try:
            yield self._step
        finally:
            self.gradients()
            self._writer.step(record | {"event": "end"})
            self._step = None

    def gradients(self) -> None:
        """Keeps the gradients that parameters have now. Done before each step of an optimiser, at the end of each
        `step`, and at the end of the recording."""
        for name, parameter in self._parameters():
            if parameter.grad is not None:
                self._quietly(self._result)(f"{name}.grad", parameter.grad, "gradient", parameter)

    def _parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        return ((_uncompiled(name), p) for name, p in self.model.named_parameters())

    def _result(self, name: str, t: torch.Tensor, role: str, of: torch.Tensor | None = None) -> None:
        """What training gives besides the model's outputs: kept once for each value that it takes."""
        source = self._value(t, None if self._mode else name, role)
        if self._known.get(name) == source:
            return
        self._known[name] = source
        more = {} if of is None else {"of": self._value(of)}
        number = self._named(t, name, role, **more) if self._mode else source
        self._graph["outputs"].append(number)

    def _optimised(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """The state that an optimiser keeps of each parameter, by the name of the parameter."""
        names = {id(p): name for name, p in self._parameters()}
        for group in optimizer.param_groups:
            for p in group["params"]:
                if self._mode is None:
                    # PyTorch does not count the writes of steps that take many tensors at once.
                    self._stepped.update(names[i] for i in [id(p)] if i in names)
                    for t in [p, *optimizer.state.get(p, {}).values()]:
                        if isinstance(t, torch.Tensor):
                            self._memories.pop(t.untyped_storage()._cdata, None)
                for key, state in optimizer.state.get(p, {}).items():
                    if id(p) in names and isinstance(state, torch.Tensor):
                        self._named(state, f"{names[id(p)]}.{key}", "optimizer", of=self._value(p))

    def _changed(self) -> None:
        """Parameters that were written to since the recording began, as they are now."""
        for name, parameter in self._parameters():
            memory = self._memories.get(parameter.untyped_storage()._cdata)
            written = memory is not None and memory.version > 0
            if written or name in self._stepped or self._before_all.get(name) != _writes(parameter):
                self._result(f"{name}.updated", parameter, "parameter")

    # The whole

    def __enter__(self) -> Recorder:
        for role, tensors in (("parameter", self.model.named_parameters(remove_duplicate=False)),
                              ("buffer", self.model.named_buffers(remove_duplicate=False))):  # fmt: skip
            for name, t in tensors:
                name = _uncompiled(name)
                first = self._names.setdefault((t.untyped_storage()._cdata, _place(t)), (name, role))
                if first[0] != name:
                    self._tied.setdefault(first[0], []).append(name)
        for first, others in self._tied.items():
            text = f"{first} is also {', '.join(others)}"
            self._writer.note({"class": "tied", "text": text, "where": [first, *others]})
        self._before_all = {name: _writes(p) for name, p in self._parameters()}
        hooked = set()
        for path, module in self.model.named_modules():
            path = _uncompiled(path)
            if path in hooked:
                continue
            hooked.add(path)
            before, after = self._before(path), self._after(path)
            if module._compiled_call_impl is not None:
                self._compiled.append((module, module._compiled_call_impl))
                module._compiled_call_impl = _around(module, module._compiled_call_impl, before, after)
                continue
            self._handles.append(module.register_forward_pre_hook(before, prepend=True, with_kwargs=True))
            self._handles.append(module.register_forward_hook(after, with_kwargs=True))
        pre, post = self._quietly(lambda *_: self.gradients()), self._quietly(self._optimised)
        self._handles.append(register_optimizer_step_pre_hook(pre))
        self._handles.append(register_optimizer_step_post_hook(post))
        if self._mode is not None:
            _ACTIVE.append(self)
            if self._compiled or any(hasattr(m, "_orig_mod") for m in self.model.modules()):
                from ._inductor import watched

                self._watch = watched(lambda: _ACTIVE[-1] if _ACTIVE else None)
                self._watch.__enter__()
            self._mode.__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._mode is not None:
            self._mode.__exit__(kind, error, trace)
            _ACTIVE.remove(self)
            if self._watch is not None:
                self._watch.__exit__(None, None, None)
        try:
            if error is None:
                self.gradients()
                self._quietly(self._changed)()
            else:
                self._writer.note({"class": "interrupted", "text": f"{kind.__name__}: {error}"})
            if not self._counts:
                text = "the recorded model was not called; record what torch.compile gave, where that was called in its place"
                self._writer.note({"class": "uncalled", "text": text})
            self._writer.graph({"name": _class(self.model), **self._graph})
        finally:
            for handle in self._handles:
                handle.remove()
            for module, impl in self._compiled:
                module._compiled_call_impl = impl
            self._handles, self._compiled = [], []
            self._writer.finish()


def _uncompiled(path: str) -> str:
    """The path of what a compiled module was made of is its own."""
    return ".".join(part for part in path.split(".") if part != "_orig_mod")


def _around(module: torch.nn.Module, impl: Any, before: Any, after: Any) -> Any:
    """A call of a module that was compiled in place, in which the module's own hooks are compiled too."""

    def call(*args: Any, **kwargs: Any) -> Any:
        before(module, args, kwargs)
        output = impl(*args, **kwargs)
        after(module, args, kwargs, output)
        return output

    return call


_STORED = {*SHORT.values(), *(short for short, _ in EXTRA.values())}


# Running statistics are written in training, though the schema does not say so.
_HIDDEN = {name: ("running_mean", "running_var") for name in ("aten::native_batch_norm", "aten::cudnn_batch_norm")}


class _Operators(TorchDispatchMode):
    """Sees every call of an operator below autograd."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """torch.compile goes on inside a recording: else the recorded run would not be the compiled one."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        recorder, schema = self.recorder, func._schema
        # What a compiler tries out is not run.
        if recorder._busy or CompileContext.try_get() is not None:
            return func(*args, **kwargs)
        recorder._calls += 1
        if recorder._calls % SWEEP == 0:
            gone = [key for key, memory in recorder._memories.items() if memory.alive.expired()]
            for key in gone:
                del recorder._memories[key]
        inputs: list[int | None] = []
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
                inputs.append(recorder._value(given))
            elif "Tensor" in kind and isinstance(given, (list, tuple)):
                inputs += [None if t is None else recorder._value(t) for t in given]
            elif "Tensor" in kind and given is None:
                inputs.append(None)
            else:
                setting = _setting(given)
                if setting is not None:
                    attributes[argument.name] = setting
        if attributes.get("training") == {"bool": True}:
            written += hidden
        out = func(*args, **kwargs)
        results = [out] if isinstance(out, torch.Tensor) else list(out) if isinstance(out, (list, tuple)) else []
        flat = [t for r in results for t in (r if isinstance(r, (list, tuple)) else [r])]
        if not written and not any(isinstance(t, torch.Tensor) for t in flat):
            return out
        name = func.__name__
        scope = next((path for path, *_ in reversed(recorder._stack) if path), "")
        label = f"{scope}/{schema.name.split('::')[-1]}" if scope else schema.name.split("::")[-1]
        before = {t.untyped_storage()._cdata for t in written}
        for t in written:
            recorder._memory(t).version += 1
        outputs: list[int | None] = []
        fresh: dict[int, int] = {}
        for t in flat:
            if not isinstance(t, torch.Tensor):
                outputs.append(None)
            elif id(t) in fresh:
                outputs.append(fresh[id(t)])
            else:
                # What was written is no view of what was there before.
                view = aliases and t.layout is torch.strided and t.untyped_storage()._cdata not in before
                fresh[id(t)] = recorder._write(t, label, "intermediate", view=view)
                outputs.append(fresh[id(t)])
        more = [t for t in written if id(t) not in fresh]
        for t in more:
            fresh[id(t)] = recorder._write(t, label, "intermediate")
            outputs.append(fresh[id(t)])
        recorder._node(schema.name.split("::")[0], name, inputs, outputs, attributes)
        for t in written:
            if t.layout is torch.strided:
                recorder._written(t, fresh[id(t)])
        return out


def _setting(given: Any) -> dict[str, Any] | None:
    if isinstance(given, bool):
        return {"bool": given}
    if isinstance(given, (int, torch.SymInt)):
        return {"int": int(given)}
    if isinstance(given, (float, torch.SymFloat)):
        return {"float": _number(float(given))}
    if isinstance(given, str):
        return {"string": given}
    if isinstance(given, torch.dtype):
        return {"dtype": _short(given)}
    if isinstance(given, (list, tuple)):
        if all(isinstance(x, bool) for x in given) and given:
            return {"bools": list(given)}
        if all(isinstance(x, (int, torch.SymInt)) for x in given):
            return {"ints": [int(x) for x in given]}
        if all(isinstance(x, (int, float)) for x in given):
            return {"floats": [_number(float(x)) for x in given]}
    # Devices, layouts and memory formats do not change what is computed.
    return None


def _number(x: float) -> float | str:
    return x if x == x and abs(x) != float("inf") else "nan" if x != x else "inf" if x > 0 else "-inf"


def _reach(key: tuple[Any, ...]) -> tuple[int, int]:
    """Where in its storage the first element of a tensor lies, and the last."""
    return key[0], key[0] + sum((n - 1) * s for n, s in zip(key[1], key[2]) if n)


def _count(key: tuple[Any, ...]) -> int:
    count = 1
    for n in key[1]:
        count *= n
    return count


def _dense(key: tuple[Any, ...]) -> bool:
    """Whether a view touches every element between its first and its last, each once."""
    expected = 1
    for stride, n in sorted((s, n) for s, n in zip(key[2], key[1]) if n != 1):
        if stride != expected:
            return False
        expected *= n
    return True


def _location() -> str | None:
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_INSIDE) and not file.startswith("<"):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return None


@functools.lru_cache(maxsize=None)
def _signature(forward: Any) -> tuple[inspect.Signature, tuple[str, ...], tuple[str, ...]]:
    """Of a module's method: the whole, the names that positions may have, and every name; names without the module's."""
    signature = inspect.signature(forward)
    kinds = [(p.name, p.kind) for p in signature.parameters.values()][1:]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return signature, tuple(n for n, k in kinds if k in positional), tuple(n for n, k in kinds if k not in variadic)


def _arguments(module: torch.nn.Module, args: Any, kwargs: Any) -> dict[str, Any]:
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


def _header(model: torch.nn.Module, keeps: str, source: str | None) -> dict[str, Any]:
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
    if kind == "cuda":
        device += f" ({torch.cuda.get_device_name(first.device)})"
    else:
        device += f" ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
    return {
        "producer": {"name": "isotrace.torch", "version": _isotrace.__version__},
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "source": source or _class(model),
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


def record(
    model: torch.nn.Module,
    folder: Any,
    *,
    level: str = "operators",
    keeps: str = "data",
    shard_bytes: int = 64 << 20,
    source: str | None = None,
) -> Recorder:
    """Records all that happens inside `with` into a new folder.

    `level` is "modules" or "operators"; `keeps` is "data", "digest" (statistics and hashes alone) or "both".
    `shard_bytes` is how much is gathered in memory before it is written.
    """
    return Recorder(model, folder, level=level, keeps=keeps, shard_bytes=shard_bytes, source=source)
