"""What a recorded function sees beside pointers: its plan holds for a call that sees the same.

Numbers and words among arguments are part of a recording's key (`look`). Of other objects only what they are is known, so a
recording holds for the same ones: local tensors that were not written to, modules, optimizers and functions; what else could
have changed inside is never the same. Beside its arguments a function reads tensors by name, from its closure, its globals and
its ``self``, in containers, modules and objects of the user's own classes too: where a name stands for another tensor, the
recording does not hold. A function that reaches a pointer in other ways (a property that computes, an object of a library) is
recorded at each call. Numbers that it reads by name, and local tensors that it reaches in other ways, are taken to stay.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import sys
import types
import weakref
from collections import ChainMap, UserDict, UserList, deque
from collections.abc import ItemsView, KeysView, Sequence, ValuesView
from typing import Any

import numpy as np
import torch

from syft_lab.record import Recorded

_EXACT = (
    int,
    str,
    bytes,
    bool,
    type(None),
    enum.Enum,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    torch.Size,
)
_NAMED = (torch.nn.Module, torch.optim.Optimizer, types.FunctionType, types.BuiltinFunctionType, type)


def look(arg: Any) -> Any:
    """What a recording's key has of an argument: a number's type and value, a pointer's shape and gradients, or a type."""
    if isinstance(arg, Recorded):
        grad = arg.grad if arg.requires_grad and arg.is_leaf else None
        return arg._spec.plain, arg.requires_grad, getattr(grad, "_spec", None)
    if isinstance(arg, _EXACT):
        return type(arg), arg  # 1, 1.0 and True are equal, and make other plans
    return (type(arg), repr(arg)) if isinstance(arg, float | complex | np.generic) else type(arg)


def _told(arg: Any) -> bool:
    """Whether `look` tells all of it."""
    return isinstance(arg, (Recorded, *_EXACT, float, complex, np.generic))


class Surroundings:
    """What a function was given and would read by name, as it was. Holds none of it."""

    def __init__(self, flat: Sequence[Any], near: Sequence[Any]) -> None:
        self._near = [t if isinstance(t, bool) else weakref.ref(t) for t in near]
        self._versions = [_version(t) for t in near]
        self._given = [None if _told(a) else _reference(a) for a in flat]
        self._given_versions = [_version(a) for a in flat]
        self._memory = {t.data_ptr() for t in (*near, *flat) if _local(t)}
        self._strict = False

    def read(self, inputs: Sequence[torch.Tensor]) -> None:
        """Note which local tensors the plan has as inputs. One in other memory than these was made of them at the recording."""
        self._strict = any(t.untyped_storage().data_ptr() not in self._memory for t in inputs)

    def given(self, flat: Sequence[Any]) -> bool:
        """Whether these arguments, where they are no pointers or numbers, are the same objects, unchanged."""
        pairs = zip(flat, self._given, self._given_versions, strict=True)
        return all(_told(a) or (ref is not None and ref() is a and _version(a) == version) for a, ref, version in pairs)

    def same(self, near: Sequence[Any]) -> bool:
        """Whether names stand for the same tensors; where others were made of local ones, for unchanged ones."""
        if len(self._near) != len(near) or (self._strict and self._versions != [_version(t) for t in near]):
            return False
        return all((a is b) if isinstance(a, bool) else a() is b for a, b in zip(self._near, near, strict=True))


def _local(thing: Any) -> bool:
    return isinstance(thing, torch.Tensor) and not isinstance(thing, Recorded)


def _version(thing: Any) -> int:
    """How often a local tensor was written to."""
    return thing._version if _local(thing) else 0


def _reference(arg: Any) -> weakref.ref[Any] | None:
    """None for what could have changed inside and be the same object."""
    return weakref.ref(arg) if isinstance(arg, (torch.Tensor, *_NAMED)) else None


def near(function: Any, flat: Sequence[Any]) -> list[Any]:
    """Tensors that a function reads by name, and whether modules there train; in an order that stays."""
    found: list[Any] = []
    seen: dict[int, Any] = {}  # they stay while ids are compared
    _reach(function, found, seen)
    for arg in flat:
        if not _told(arg):
            _reach(arg, found, seen)
    return found


def _reach(root: Any, found: list[Any], seen: dict[int, Any]) -> None:
    kind = _KINDS.get(type(root)) or _kind(type(root))
    if kind == "tensor":
        found.append(root)
        return
    if kind == "other" or id(root) in seen:
        return
    seen[id(root)] = root
    if kind == "module":
        _reach_module(root, found, seen)
    elif kind == "function":
        _reach_function(root, found, seen)
    else:
        for each in _PARTS[kind](root):
            _reach(each, found, seen)


_PARTS: dict[str, Any] = {
    "dict": lambda d: list(d.values()),
    "list": list,
    "array": lambda a: a.reshape(-1).tolist() if a.dtype == object else (),
    "optimizer": lambda o: (o.param_groups, list(o.state.values())),
    "method": lambda f: (f.__self__, getattr(f.__self__, "__dict__", None), f.__func__),
    "partial": lambda f: (f.func, f.args, f.keywords),
    "wrapper": lambda f: (f.__wrapped__,),
    "own": lambda o: _attributes(o),
}


def _kind(kind: type) -> str:
    """How a type is looked into; it is asked for each object, and torch's own checks are slow."""
    names = {
        "tensor": torch.Tensor, "module": torch.nn.Module, "optimizer": torch.optim.Optimizer, "array": np.ndarray,
        "dict": (dict, types.MappingProxyType, ChainMap, UserDict),
        "list": (list, tuple, set, frozenset, deque, UserList, KeysView, ValuesView, ItemsView),
        "method": types.MethodType, "partial": functools.partial,
        "function": types.FunctionType, "wrapper": Wrapper,
    }  # fmt: skip
    other = "own" if _is_own(kind) else "other"
    found = _KINDS[kind] = next((name for name, base in names.items() if issubclass(kind, base)), other)
    return found


def _is_own(kind: type) -> bool:
    """Whether a class is the user's: of a notebook, or of a module that is no installed library's, Python's or ours."""
    name = kind.__module__.partition(".")[0]
    if kind is types.SimpleNamespace:
        return True
    if name in sys.stdlib_module_names and name != "__main__":
        return False
    place = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
    return name not in ("syft_lab", "builtins") and not {"site-packages", "dist-packages"}.intersection(place.split("/"))


def _attributes(thing: Any) -> list[Any]:
    """What an object holds, in slots too."""
    slots = [name for kind in type(thing).__mro__ for name in _slots(kind) if name not in ("__dict__", "__weakref__")]
    return [*getattr(thing, "__dict__", {}).values(), *(getattr(thing, name, None) for name in slots)]


def _slots(kind: type) -> tuple[str, ...]:
    names = kind.__dict__.get("__slots__", ())
    return (names,) if isinstance(names, str) else tuple(names)


_KINDS: dict[type, str] = {}  # by type: a program has few, and keeps most for ever


class Wrapper:
    """What calls a function that it has as ``__wrapped__``."""

    __wrapped__: Any


def _reach_module(module: Any, found: list[Any], seen: dict[int, Any]) -> None:
    held = module.__dict__
    found.append(module.training)
    found += [each for each in held.values() if (_KINDS.get(type(each)) or _kind(type(each))) == "tensor"]
    for tensors in (held["_parameters"], held["_buffers"]):
        if tensors:
            found += [t for t in tensors.values() if t is not None]
    for part in held["_modules"].values():
        if part is not None and id(part) not in seen:
            seen[id(part)] = part
            _reach_module(part, found, seen)


def _reach_function(function: types.FunctionType, found: list[Any], seen: dict[int, Any]) -> None:
    """What is in a function's closure, its defaults, and its globals that its code names."""
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # a name that is not bound yet
            _reach(cell.cell_contents, found, seen)
    _reach(function.__defaults__, found, seen)
    _reach(function.__kwdefaults__, found, seen)
    names = function.__globals__
    for name in _names(function.__code__):
        named = names.get(name)
        if not isinstance(named, types.FunctionType) or named.__globals__ is names:  # not into libraries
            _reach(named, found, seen)


@functools.lru_cache(maxsize=1024)
def _names(code: types.CodeType) -> tuple[str, ...]:
    """Names in a function's code, and in functions in it: of globals, and of attributes."""
    inner = [n for c in code.co_consts if isinstance(c, types.CodeType) for n in _names(c)]
    return tuple(dict.fromkeys((*code.co_names, *inner)))
