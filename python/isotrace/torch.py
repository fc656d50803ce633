"""Records what a PyTorch model computes, without changing it.

    with isotrace.torch.record(model, "trace"):
        model(**inputs)
    isotrace.diff("trace", "model.onnx")

At the level "modules", forward hooks keep what each module is given and gives; parameters and buffers are kept once. At
the level "operators" (the default, which includes the other) every call of an ATen operator is kept with its arguments,
backward and optimiser too, so that the graph is known and isotrace can replay each call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, Optional

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from . import _isotrace
from ._arguments import arguments, class_name, tensors, uncompiled
from ._environment import header
from ._memory import place, writes
from ._operators import Operators
from ._values import Values

__all__ = ["Recorder", "record"]

# Recordings of operators under way, the innermost last.
_ACTIVE: list[Recorder] = []


class Recorder:
    """A recording under way; `with record(...) as recorder` gives it."""

    def __init__(
        self, model: torch.nn.Module, folder: Any, *, level: str, keeps: str, parameters: bool, shard_bytes: int, source: Optional[str]
    ):
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"{type(model).__name__} is no kind of model; expected a torch.nn.Module (wrap a function in one)")
        if level not in ("modules", "operators"):
            raise ValueError(f'level is {level!r}, expected "modules" or "operators"')
        if keeps not in ("data", "digest", "both"):
            raise ValueError(f'keeps is {keeps!r}, expected "data", "digest" or "both"')
        for name, t in (*model.named_parameters(), *model.named_buffers()):
            if torch.nn.parameter.is_lazy(t):
                raise ValueError(f"{name} has no shape before the model's first call; call the model once, then record it")
        self.model, self.level = model, level
        self._values = Values(
            _isotrace.Writer(os.fspath(folder), header(model, keeps, source), shard_bytes), operators=level == "operators"
        )
        self._mode = Operators(self._values) if level == "operators" else None
        # Operators are seen to read them; hooks see none.
        self._keeps_all = parameters and self._mode is None
        self._steps = 0
        # Calls of modules by path and step.
        self._counts: dict[tuple[str, Optional[int]], int] = {}
        self._tied: dict[str, list[str]] = {}
        self._graph: dict[str, list[int]] = {"inputs": [], "outputs": []}
        self._handles: list[RemovableHandle] = []
        self._compiled: list[tuple[torch.nn.Module, Any]] = []
        self._watch: Optional[AbstractContextManager[None]] = None
        # What training gave last, by name.
        self._known: dict[str, int] = {}
        # PyTorch's counts of writes to parameters when the recording began.
        self._before_all: dict[str, int] = {}
        self._stepped: set[str] = set()

    # Modules

    def _before(self, path: str) -> Callable[..., None]:
        @self._values.quietly
        def hook(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
            call = self._values.writer.reserve_call()
            given = list(tensors(arguments(module, args, kwargs)))
            root = not path and not self._values.stack
            ids = []
            for name, t in given:
                ids.append(self._input(t, name) if root else self._values.value(t, f"{path}.{name}", "intermediate"))
            self._values.stack.append((path, call, ids))

        return hook

    def _input(self, t: torch.Tensor, name: str) -> int:
        """What the model reads is given to it, however it came about inside the recording."""
        given = self._graph["inputs"]
        if self._mode is None or t.layout is not torch.strided:
            value = self._values.value(t, name, "input")
        else:
            known = self._values.memory(t).views.get(self._values.key(t))
            own = (t.untyped_storage()._cdata, place(t)) in self._values.names
            value = known if known in given else self._values.value(t) if own else self._values.write(t, name, "input")
        if value not in given:
            given.append(value)
        return value

    def _after(self, path: str) -> Callable[..., None]:
        @self._values.quietly
        def hook(module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            while self._values.stack:
                found, call, given = self._values.stack.pop()
                if found == path:
                    break
            else:
                return
            root = not self._values.stack
            ids = []
            for name, t in tensors(output):
                full = (name or "output") if root else f"{path}.{name}" if name else path
                if root:
                    ids.append(self._values.named(t, full, "output") if self._mode else self._values.value(t, full, "output"))
                    self._graph["outputs"].append(ids[-1])
                else:
                    ids.append(self._values.value(t, full))
                if t.requires_grad:
                    t.register_hook(self._gradient(full, ids[-1]))
            key = (path, self._values.step)
            index = self._counts.get(key, 0)
            self._counts[key] = index + 1
            record = {"id": call, "module": path, "class": class_name(module), "index": index, "inputs": given, "outputs": ids}
            if self._values.step is not None:
                record["step"] = self._values.step
            if self._values.stack:
                record["parent"] = self._values.stack[-1][1]
            self._values.writer.call(record)

        return hook

    def _gradient(self, name: str, of: int) -> Callable[..., None]:
        @self._values.quietly
        def hook(gradient: Optional[torch.Tensor]) -> None:
            if self._handles and gradient is not None:
                self._values.named(gradient, f"{name}.grad", "gradient", of=of)

        return hook

    # Steps

    @contextmanager
    def step(self, name: Optional[str] = None) -> Iterator[int]:
        """One step of training, or of whatever is repeated: what is recorded inside carries its number."""
        self._values.step, self._steps = self._steps, self._steps + 1
        record = {"index": self._values.step} | ({"name": name} if name else {})
        self._values.writer.step(record | {"event": "begin"})
        try:
            yield self._values.step
        finally:
            self.gradients()
            self._values.writer.step(record | {"event": "end"})
            self._values.step = None

    def gradients(self) -> None:
        """Keeps the gradients that parameters have now. Done before each step of an optimiser, at the end of each
        `step`, and at the end of the recording."""
        for name, parameter in self._parameters():
            if parameter.grad is not None:
                self._values.quietly(self._result)(f"{name}.grad", parameter.grad, "gradient", parameter)

    def _parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        return ((uncompiled(name), p) for name, p in self.model.named_parameters())

    def _result(self, name: str, t: torch.Tensor, role: str, of: Optional[torch.Tensor] = None) -> None:
        """What training gives besides the model's outputs: kept once for each value that it takes."""
        source = self._values.value(t, None if self._mode else name, role)
        if self._known.get(name) == source:
            return
        self._known[name] = source
        more = {} if of is None else {"of": self._values.value(of)}
        number = self._values.named(t, name, role, **more) if self._mode else source
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
                            self._values.memories.pop(t.untyped_storage()._cdata, None)
                for key, state in optimizer.state.get(p, {}).items():
                    if id(p) in names and isinstance(state, torch.Tensor):
                        self._values.named(state, f"{names[id(p)]}.{key}", "optimizer", of=self._values.value(p))

    def _changed(self) -> None:
        """Parameters that were written to since the recording began, as they are now."""
        for name, parameter in self._parameters():
            memory = self._values.memories.get(parameter.untyped_storage()._cdata)
            written = memory is not None and memory.version > 0
            if written or name in self._stepped or self._before_all.get(name) != writes(parameter):
                self._result(f"{name}.updated", parameter, "parameter")

    # The whole

    def __enter__(self) -> Recorder:
        keep = self._values.quietly(self._values.value)
        self._values.later = True
        for role, held in (("parameter", self.model.named_parameters(remove_duplicate=False)),
                           ("buffer", self.model.named_buffers(remove_duplicate=False))):  # fmt: skip
            for name, t in held:
                name = uncompiled(name)
                first, _ = self._values.names.setdefault((t.untyped_storage()._cdata, place(t)), (name, role))
                if first != name:
                    self._tied.setdefault(first, []).append(name)
                elif self._keeps_all:
                    keep(t)
        for first, others in self._tied.items():
            text = f"{first} is also {', '.join(others)}"
            self._values.writer.note({"class": "tied", "text": text, "where": [first, *others]})
        self._values.later = False
        self._values.writer.settle()
        self._before_all = {name: writes(p) for name, p in self._parameters()}
        hooked = set()
        for path, module in self.model.named_modules():
            path = uncompiled(path)
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
        pre, post = self._values.quietly(lambda *_: self.gradients()), self._values.quietly(self._optimised)
        self._handles.append(register_optimizer_step_pre_hook(pre))
        self._handles.append(register_optimizer_step_post_hook(post))
        if self._mode is not None:
            _ACTIVE.append(self)
            if self._compiled or any(hasattr(m, "_orig_mod") for m in self.model.modules()):
                from ._inductor import watched

                self._watch = watched(lambda: _ACTIVE[-1]._values if _ACTIVE else None)
                self._watch.__enter__()
            self._mode.__enter__()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._mode is not None:
            self._mode.__exit__(kind, error, trace)
            _ACTIVE.remove(self)
            if self._watch is not None:
                self._watch.__exit__(None, None, None)
        try:
            if error is None:
                self.gradients()
                self._values.quietly(self._changed)()
            else:
                told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                self._values.writer.note({"class": "interrupted", "text": f"an error ended the recording early: {told}"})
            # What was interrupted may have been on its way.
            if not self._counts and error is None:
                text = "the recorded model was not called; record what torch.compile gave, where that was called in its place"
                self._values.writer.note({"class": "uncalled", "text": text})
            self._values.writer.graph({"name": class_name(self.model), **self._graph})
        finally:
            for handle in self._handles:
                handle.remove()
            for module, impl in self._compiled:
                module._compiled_call_impl = impl
            self._handles, self._compiled = [], []
            self._values.writer.finish()


def _around(module: torch.nn.Module, impl: Callable[..., Any], before: Callable[..., None], after: Callable[..., None]) -> Callable[..., Any]:
    """A call of a module that was compiled in place, in which the module's own hooks are compiled too."""

    def call(*args: Any, **kwargs: Any) -> Any:
        before(module, args, kwargs)
        output = impl(*args, **kwargs)
        after(module, args, kwargs, output)
        return output

    return call


def record(
    model: torch.nn.Module,
    folder: Any,
    *,
    level: str = "operators",
    keeps: str = "data",
    parameters: bool = True,
    shard_bytes: int = 64 << 20,
    source: Optional[str] = None,
) -> Recorder:
    """Records all that happens inside `with` into a new folder.

    `level` is "modules" or "operators"; `keeps` is "data", "digest" (statistics and hashes alone) or "both".
    Parameters and buffers are kept as operators read them; at the level of modules all of them are, unless `parameters`
    is false.
    `shard_bytes` is how much is gathered in memory before it is written.
    """
    return Recorder(model, folder, level=level, keeps=keeps, parameters=parameters, shard_bytes=shard_bytes, source=source)
