"""Which kernel set runs, and why.

The only place that knows every set by name. The torch set is an optional dependency: it is
imported where it is asked for, by name, so that nothing else ever loads torch.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection
from typing import Any, Literal, NamedTuple

from hexad.errors import ConfigError
from hexad.kernels.ops import Ops

Kind = Literal["auto", "native", "reference", "torch"]

_SETS = {
    "native": ("hexad.kernels.native", "NativeOps"),
    "reference": ("hexad.kernels.reference", "ReferenceOps"),
    "torch": ("hexad.kernels.torch_set", "TorchOps"),
}
_EXTENSION = "hexad.kernels._native"


class Loaded(NamedTuple):
    ops: Ops
    note: str
    """A sentence for people where the set is not what a fast machine would run, else nothing."""


def load(kind: Kind, threads: int, device: str = "cpu", without: Collection[str] = ()) -> Loaded:
    """The kernel set `kind`, on `threads` threads (native) or on `device` (torch).

    `auto` is native where its extension is built, else reference; the note says why. `without`
    names optimisations of the native set to leave out.
    Raises ConfigError if the set that was asked for by name cannot run here.
    """
    name = kind
    missing = native_problem() if kind in ("auto", "native") else ""
    if kind == "auto":
        name = "reference" if missing else "native"
    elif missing:
        raise ConfigError(f"kernels is native, but {missing}, or use kernels=reference", param="kernels")
    if name == "torch" and importlib.util.find_spec("torch") is None:
        raise ConfigError(
            "kernels is torch, but torch is not installed; pip install 'hexad[cuda]', or use kernels=auto",
            param="kernels",
        )
    if name != "torch" and device != "cpu":
        raise ConfigError(
            f"device is {device!r}, but the {name} kernels run on the CPU; use kernels=torch or device=cpu",
            param="device",
        )
    if name != "native" and without:
        raise ConfigError(f"without is {', '.join(without)}, but the {name} kernels have no optimisations to leave out")
    module, cls = _SETS[name]
    arguments: dict[str, tuple[Any, ...]] = {"native": (threads, None, without), "reference": (), "torch": (device,)}
    ops: Ops = getattr(importlib.import_module(module), cls)(*arguments[name])
    notes = {
        "native": "",
        "reference": f"Slow reference kernels in use: {missing or 'as asked for'}. They do not use `threads`.",
        "torch": "The torch kernels do not promise the same bits in every batch, and do not use `threads`.",
    }
    return Loaded(ops, notes[name])


def native_problem() -> str:
    """Why the native set cannot run here; nothing where it can."""
    if importlib.util.find_spec(_EXTENSION) is None:
        problem = "are not built"
    else:
        try:
            importlib.import_module(_EXTENSION)
        except ImportError as error:
            problem = f"cannot be loaded ({error})"
        else:
            return ""
    return f"the native kernels {problem}; install Hexad again where a C++ compiler is found"
