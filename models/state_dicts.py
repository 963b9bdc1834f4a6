"""The state dict in what torch.save wrote, however training programs wrap it.

Programs save `model.state_dict()`, or a dictionary that has it under a key ("state_dict", "model", "model_ema"), beside
an optimizer's; DataParallel, torch.compile, an averaged model or Lightning put a word before every name. Whichever it
is, the names of the network's own layers decide: what has them all and nothing else is meant. Where two have them, or
none, nothing is guessed.
"""

import argparse
import errno
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coreml_prune_bench.models.errors import WeightsError
from coreml_prune_bench.models.pointers import pointer_problem

StateDict = dict[str, Tensor]

_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")
"""Parts of names that torch.compile, sharding, checkpointing of activations and DataParallel put in, anywhere."""
_SURE_WRAPPERS = _WRAPPERS[:-1]
"""Those that no network calls a part of its own."""
_COUNTERS = frozenset({"n_averaged"})
"""What torch.optim.swa_utils.AveragedModel keeps beside the network."""
_DEEPEST = 4
"""Dictionaries within dictionaries that are looked into."""
_SAVE = "torch.save(model.state_dict(), PATH)"
_SAVE_SCRIPTED = "torch.save(torch.jit.load(PATH).state_dict(), PATH)"


def read_state_dict(path: Path, names: Callable[[], Collection[str]]) -> StateDict:
    """The one state dict in the file at `path` that is for a network whose state dict has these names.

    Where none fits, the only one there is, as it is: whoever takes it says what is wrong with it. names: asked for once
    the file was read. Raises WeightsError of one line where the file is none of torch's, is something else than
    weights, has no state dict, or several that fit and differ.
    """
    loaded = _load(path)
    found = dict(_state_dicts(loaded))
    if not found:
        has = ""
        if isinstance(loaded, Mapping) and loaded:
            has = f"; its keys are {', '.join(str(key)[:40] for key in list(loaded)[:5])}{', ...' * (len(loaded) > 5)}"
        raise WeightsError(f"{path} does not hold a state dict (names with tensors){has}; expected {_SAVE}")
    expected = frozenset(names())
    fitting = {key: state for key, one in found.items() if (state := _renamed(one, expected)) is not None}
    if not fitting and len(found) > 1:
        raise WeightsError(f"{path} holds state dicts under {_listed(found)}, and none of them is for this network")
    if not fitting:
        (only,) = found.values()
        wrapped = all(key.split(".")[0] in _WRAPPERS for key in only.keys() - _COUNTERS)
        return _without(only, _WRAPPERS if wrapped else _SURE_WRAPPERS)
    first, *others = fitting.values()
    if not all(_equal(first, other) for other in others):
        raise WeightsError(
            f"{path} holds different weights for this network under {_listed(fitting)}; save the one that is meant "
            f"alone: torch.save(torch.load(PATH)[{next(iter(fitting))!r}], PATH)"
        )
    return first


def _load(path: Path) -> Any:
    """Raises WeightsError where the file is none of torch's, or holds more than weights."""
    if _is_torchscript(path):
        raise WeightsError(f"{path} is a TorchScript archive; expected weights alone: {_SAVE_SCRIPTED}")
    try:
        # What training programs keep their options in. It holds values and does nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle is another program, and raises what it likes
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that one is of a place outside of the file
            raise
        raise WeightsError(f"{path} {_problem(path, error)}") from error


def _problem(path: Path, error: Exception) -> str:
    """What the file is, which `torch.load(weights_only=True)` did not read; to stand behind its name."""
    if problem := pointer_problem(path):
        return problem
    if found := re.search(r"GLOBAL (\S+) was not an allowed global", str(error)):
        unsafe = _unsafe_globals(path) or [found[1]]
        if any(name.startswith("torch.nn.modules.") for name in unsafe):
            own = [name for name in unsafe if not name.startswith("torch.")]
            which = f" ({own[0]})" if own else ""
            return f"holds a whole pickled network{which}, which would run code when it is read; expected {_SAVE}"
        return f"holds {unsafe[0]}, which is read by running code, beside the weights; expected them alone: {_SAVE}"
    return "is not a file of weights that torch.load(weights_only=True) can read"


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except Exception:  # no archive, or a damaged one, of which zipfile raises what it likes
        return False


def _unsafe_globals(path: Path) -> list[str]:
    """The classes and functions that reading the file would ask for, sorted; empty where that cannot be told."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # of the older form, or damaged: the first one is known all the same
        return []


def _state_dicts(loaded: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, StateDict]]:
    """Every dictionary of names with tensors alone, by the keys under which it stands, with dots."""
    if not isinstance(loaded, Mapping) or not loaded or depth > _DEEPEST:
        return
    if all(isinstance(key, str) and isinstance(value, Tensor) for key, value in loaded.items()):
        yield place, dict(loaded)
        return
    for key, value in loaded.items():
        if isinstance(key, str):
            yield from _state_dicts(value, f"{place}.{key}" if place else key, depth + 1)


def _renamed(state: StateDict, expected: frozenset[str]) -> StateDict | None:
    """`state` under the network's own names; None where it is not for the network."""
    for candidate in (state, _without(state, _SURE_WRAPPERS), _without(state, _WRAPPERS)):
        if _fits(candidate, expected):
            return candidate
        for prefix in _prefixes(candidate, expected):
            short = {key.removeprefix(prefix): value for key, value in candidate.items() if key not in _COUNTERS}
            if len(short) == len(candidate.keys() - _COUNTERS) and _fits(short, expected):
                return short
    return None


def _prefixes(state: StateDict, expected: frozenset[str]) -> list[str]:
    """What stands before every name, where that can be: such as "model." of Lightning's modules."""
    one = max((name for name in expected if not _is_counter(name)), key=len, default="")
    before = [key.removesuffix(one) for key in state if key.endswith(f".{one}")]
    return [prefix for prefix in before if all(key.startswith(prefix) or key in _COUNTERS for key in state)]


def _fits(state: StateDict, expected: frozenset[str]) -> bool:
    """Older files lack the counters of BatchNorm, which nothing reads."""
    return state.keys() <= expected and all(_is_counter(name) for name in expected - state.keys())


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _without(state: StateDict, parts: Collection[str]) -> StateDict:
    """`state` without these parts of its names; as it is where two names would become one."""
    named = {".".join(part for part in key.split(".") if part not in parts): key for key in state}
    if len(named) < len(state) or named.keys() == state.keys():
        return state
    return {name: state[key] for name, key in named.items() if name not in _COUNTERS}


def refuse_values(state: StateDict, parameters: Collection[str], whose: str) -> None:
    """Raise WeightsError of one line for a tensor that holds no weights: sparse, without values, not of finite floats.

    parameters: the names of what is trained; other tensors may hold whole numbers and infinities, as masks do. whose:
    begins the line.
    """
    for name, value in state.items():
        if value.is_meta:
            raise WeightsError(f"{whose} lack the values of {name!r}: saved on the meta device, it is a shape")
        if value.layout != torch.strided or value.is_nested:
            raise WeightsError(f"{whose} hold {name!r} as a sparse or nested tensor; save it as value.to_dense()")
        if name in parameters and not value.is_floating_point():
            raise WeightsError(f"{whose} hold {name!r} as {value.dtype}; expected floats, such as torch.float32")
        if not value.is_floating_point():
            continue
        values = value.float()
        wrong = int((~torch.isfinite(values) if name in parameters else torch.isnan(values)).sum())
        if wrong:
            raise WeightsError(f"{whose} are NaN or infinite in {wrong:,} of the {value.numel():,} values of {name!r}")


def _equal(one: StateDict, other: StateDict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def _listed(found: Mapping[str, StateDict]) -> str:
    return ", ".join(repr(key) for key in list(found)[:4]) + ("" if len(found) <= 4 else f" and {len(found) - 4} more")
