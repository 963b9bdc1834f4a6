"""Networks that the user brings, named by a spec: `torchvision:NAME`, `timm:NAME` or `PATH.py:FUNCTION`.

A spec is read, and what a result depends on is found, without torch, so that cells are laid out in an instant. The one
exception are weights that a function of the user has loaded itself: what they are is known only when it has run.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import math
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coreml_prune_bench.models.config import Scope
from coreml_prune_bench.models.download_limits import bytes_of, limited
from coreml_prune_bench.models.errors import BenchError, WeightsError, did_you_mean
from coreml_prune_bench.models.imagenet import IMAGENET_CLASSES
from coreml_prune_bench.models.network import Network, Own
from coreml_prune_bench.models.normalization import renormalized
from coreml_prune_bench.models.own_names import named_instead
from coreml_prune_bench.models.paths import expanded
from coreml_prune_bench.models.preprocessing import Preprocessing, Recipe, recipe_of

if TYPE_CHECKING:
    from torch import Tensor, nn

_FILE = re.compile(r"(?P<path>.+\.py):(?P<function>[^:]*)")
_LONGEST_NAME = 100
SPECS = "torchvision:NAME, timm:NAME or PATH.py:FUNCTION"
_SCOPE = Scope()


def is_spec(text: str) -> bool:
    """Whether `text` names a network that is no part of this project."""
    return text.startswith(("torchvision:", "timm:")) or text.endswith(".py") or bool(_FILE.fullmatch(text))


@cache
def own_network(spec: str) -> Network:
    """The network that `spec` names. Raises BenchError of one line where there is no such package, file or function."""
    kind, _, name = spec.partition(":")
    if kind in ("torchvision", "timm"):
        if not re.fullmatch(r"[\w.]+", name):
            raise BenchError(f"--model {spec!r}: expected {SPECS}")
        return _of_torchvision(name) if kind == "torchvision" else _of_timm(name)
    found = _FILE.fullmatch(spec)
    if not found or not found["function"].isidentifier():
        raise BenchError(
            f"--model {spec!r}: name the function that returns the network: {spec.split('.py')[0]}.py:FUNCTION"
        )
    return _of_file(spec, expanded(found["path"]), found["function"])


def in_folder(spec: str, folder: Path) -> str:
    """`spec` with the path of a file taken relative to `folder`; any other text as it is."""
    found = _FILE.fullmatch(spec)
    return f"{folder / expanded(found['path'])}:{found['function']}" if found else spec


# --- torchvision

_WITHOUT_EXTRA_HEADS: dict[str, Any] = {"aux_logits": False, "transform_input": True, "init_weights": True}
_TORCHVISION_OPTIONS = {"googlenet": _WITHOUT_EXTRA_HEADS, "inception_v3": _WITHOUT_EXTRA_HEADS}
"""Heads for training alone are left out; pixels are normalized again as these two networks were trained with."""


def _of_torchvision(name: str) -> Network:
    def build(num_classes: int) -> nn.Module:
        from torchvision import models

        _check_known(f"torchvision:{name}", models.list_models(module=models))
        options = _TORCHVISION_OPTIONS.get(name, {})
        model = _ready(models.get_model(name, weights=None, num_classes=num_classes, **options))
        trained = recipe()
        return model if trained is None else renormalized(model, trained.preprocessing)

    def recipe() -> Recipe | None:
        from torchvision import models
        from torchvision.models import get_model_weights

        _check_known(f"torchvision:{name}", models.list_models(module=models))
        best = next(iter(get_model_weights(name)), None) and get_model_weights(name).DEFAULT
        if best is None or not hasattr(given := best.transforms(), "crop_size"):
            return None
        (size,), (resize,) = given.crop_size, given.resize_size
        return recipe_of(size, resize, given.interpolation.value, given.mean, given.std)

    def weights() -> dict[str, Tensor]:
        from torchvision.models import get_model_weights

        layers = build(IMAGENET_CLASSES).state_dict().keys()
        best = get_model_weights(name).DEFAULT
        size = bytes_of(best)
        state = _downloaded(lambda: dict(best.get_state_dict(check_hash=True)), best.url, f"torchvision-{name}", size)
        return {key: value for key, value in state.items() if key in layers or not key.lower().startswith("aux")}

    sources = {"torchvision": version("torchvision")}
    own = Own(f"torchvision:{name}", lambda: sources, weights, lambda: f"torchvision's default for {name}", recipe)
    return Network(f"torchvision-{name}", f"{name} (torchvision)", build, None, _SCOPE, own=own)


# --- timm


def _of_timm(name: str) -> Network:
    spec = f"timm:{name}"
    sources = {"timm": version("timm")}

    def create(**options: Any) -> nn.Module:
        import timm

        _check_known(f"timm:{name.split('.')[0]}", timm.list_models())
        try:
            return timm.create_model(name, **options)
        except RuntimeError as error:
            raise BenchError(f"{spec}: {_one_line(error)}") from error

    def build(num_classes: int) -> nn.Module:
        return _as_trained(_ready(create(num_classes=num_classes)))

    def weights() -> dict[str, Tensor]:
        return dict(_downloaded(lambda: create(pretrained=True), spec, f"timm-{name}").state_dict())

    def recipe() -> Recipe | None:
        import timm

        _check_known(f"timm:{name.split('.')[0]}", timm.list_models())
        given = timm.get_pretrained_cfg(name)
        if given is None:
            return None
        said = timm.data.resolve_data_config(pretrained_cfg=given.to_dict())
        _, height, width = said["input_size"]
        resize = math.floor(height / said["crop_pct"])
        squashed = said["crop_mode"] == "squash"
        if height != width or said["crop_mode"] == "border" or (squashed and resize != height):
            return None  # what is not offered here, of a few dozen in 1,800
        return recipe_of(height, None if squashed else resize, said["interpolation"], said["mean"], said["std"])

    own = Own(spec, lambda: sources, weights, lambda: f"timm's for {name}", recipe)
    return Network(f"timm-{name}", f"{name} (timm)", build, None, _SCOPE, own=own)


def _as_trained(model: nn.Module) -> nn.Module:
    """`model`, taking pixels normalized as ImageNet's are, whatever means and deviations it was trained with."""
    trained: dict[str, Any] = getattr(model, "pretrained_cfg", {})
    if not {"mean", "std"} <= trained.keys():
        return model
    return renormalized(model, Preprocessing(mean=trained["mean"], std=trained["std"]))


# --- a file of the user


def _of_file(spec: str, path: Path, function: str) -> Network:
    """A function of the user's file: see docs/own-model.md for what is expected of it."""
    takes_classes = _takes_classes(spec, path, function)

    def call(**options: Any) -> nn.Module:
        return _ready(_called(spec, path, function, options))

    def build(num_classes: int) -> nn.Module:
        return call(num_classes=num_classes) if takes_classes else call()

    @cache
    def weights() -> dict[str, Tensor]:
        if takes_classes == "required":
            raise WeightsError(
                f"{spec} must be told num_classes, so that it has no weights of its own: give num_classes a default, a "
                'folder with --weights, or weights = "none" in the suite'
            )
        return call().state_dict()

    def weights_name() -> str:
        digest = hashlib.sha256()
        for key, value in sorted(weights().items()):
            digest.update(f"{key} {value.dtype} {list(value.shape)}".encode())
            digest.update(value.contiguous().numpy().tobytes())
        return f"as {function} returns them: {digest.hexdigest()}"

    own = Own(spec, lambda: _sources(path), weights, weights_name)
    name = f"{path.stem}-{function}"
    if len(name.encode(errors="surrogateescape")) > _LONGEST_NAME:
        raise BenchError(
            f"--model {spec}: the names of file and function together are longer than {_LONGEST_NAME} bytes"
        )
    return Network(name, f"{function} ({path.name})", build, None, _SCOPE, own=own)


def _takes_classes(spec: str, path: Path, function: str) -> str:
    """Whether the function has a parameter num_classes, and with a default: "required", "optional" or ""."""
    for node in _parsed(spec, path).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            given = [*node.args.posonlyargs, *node.args.args]
            required = given[: len(given) - len(node.args.defaults)]
            required += [a for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d is None]
            others = [argument.arg for argument in required if argument.arg != "num_classes"]
            if others:
                raise BenchError(f"{spec}: {function} must be told {others[0]}: it is given num_classes at most")
            if not any(argument.arg == "num_classes" for argument in (*given, *node.args.kwonlyargs)):
                return ""
            return "required" if required else "optional"
    raise BenchError(f"{spec}: {named_instead(_parsed(spec, path), path, function)}")


def _parsed(spec: str, path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchError(f"--model {spec}: cannot read {path}: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        raise BenchError(f"--model {spec}: {path} is not Python: {_one_line(error)}") from error


def _sources(path: Path) -> dict[str, str]:
    """The file and what it imports: SHA-256 of files beside it, and versions of installed packages.

    Followed through the files beside it. What they read otherwise, and what is imported by a name made up while they
    run, is not seen.
    """
    found: dict[str, str] = {}
    packages: set[str] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        name = file.relative_to(path.parent).as_posix() if file != path else "file"
        if name in found:
            continue
        content = file.read_bytes()
        found[name] = hashlib.sha256(content).hexdigest()
        for module in _imported(content):
            beside = [path.parent / f"{module}.py", *sorted((path.parent / module).rglob("*.py"))]
            # macOS writes ._x.py beside x.py on some disks: a name that cannot be imported, and no Python.
            beside = [one for one in beside if one.is_file() and not one.name.startswith(".")]
            waiting += beside
            if not beside:
                packages.add(module)
    distributions = packages_distributions() if packages - sys.stdlib_module_names else {}
    installed = {name for package in packages for name in distributions.get(package, ())}
    return found | {name: version(name) for name in installed}


def _imported(content: bytes) -> set[str]:
    """The first parts of the names that a file imports; its own folder's, where relative, included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} if node.module else {alias.name for alias in node.names}
    return {name.split(".")[0] for name in names}


def _called(spec: str, path: Path, function: str, options: dict[str, Any]) -> nn.Module:
    """The network that the function returns. Raises BenchError that names the line of the user's file."""
    import torch

    from coreml_prune_bench.models.plain import code_as_written, outside_inference, problem_of_network, unwrapped

    try:
        with _importable(path.parent), code_as_written():
            module = _executed(path)
            # Seeded, so that weights that are drawn at random are the same ones in the next run.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = getattr(module, function)(**options)
    except BenchError:
        raise
    except (Exception, SystemExit) as error:  # the user's code may raise anything, and a script ends by itself
        raise BenchError(f"{spec}: {_place(error, path)}{type(error).__name__}: {_one_line(error)}") from error
    if not isinstance(model, torch.nn.Module):
        raise BenchError(f"{spec}: expected {function} to return a torch.nn.Module, got {type(model).__name__}")
    model = unwrapped(model)
    if problem := problem_of_network(model):
        raise BenchError(f"{spec}: {problem}")
    return outside_inference(model).float().cpu()


@cache
def _executed(path: Path) -> Any:
    name = f"own_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None, "the file ends in .py"
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses look their module up there
    specification.loader.exec_module(module)
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """What lies beside the file can be imported by it, as if it were run as a script."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _place(error: BaseException, path: Path) -> str:
    """The innermost line of the user's file that led to the error."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f"line {lines[-1]}: " if lines else ""


# --- all of them


def _ready(model: nn.Module) -> nn.Module:
    """Attention with projections that can be pruned."""
    from coreml_prune_bench.models.attention import with_callable_projections

    return with_callable_projections(model)


def _check_known(spec: str, known: list[str]) -> None:
    kind, _, name = spec.partition(":")
    if name not in known:
        hint = did_you_mean(name, known, at_most=3) or f"; it has {len(known)} others"
        raise BenchError(f"{kind} has no classification network {name!r}{hint}")


def _downloaded(download: Callable[[], Any], what: str, name: str, size_bytes: int | None = None) -> Any:
    try:
        return limited(download, size_bytes)
    except BenchError:
        raise
    except OSError as error:  # no network, no space, no such file
        raise WeightsError(
            f"cannot download {what} ({_one_line(error)}); give a folder that has {name}.pth with --weights"
        ) from error
    except RuntimeError as error:  # the hash does not match; timm: no weights
        raise WeightsError(f"{what}: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
