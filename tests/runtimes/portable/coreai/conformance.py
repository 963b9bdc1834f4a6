"""Apple's own list of torch operations through Apple's converter, over the portable runtime, against torch.

The list is `coreai_torch._aten_to_core`: the converter looks each operation up there, and what it looks up is noted
here. So "covered" is what was converted, not what a try is called. `make conformance-coreai` prints the counts.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from coreml_prune_bench.aimodel import reader, unpack
from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.runtimes.portable import load
from coreml_prune_bench.runtimes.portable.session import Model
from tests.runtimes.portable.coreai import elementwise, layers, moving
from tests.runtimes.portable.coreai.cases import Try

GROUPS: dict[str, list[Try]] = {
    **elementwise.UNARY,
    **elementwise.ACTIVATIONS,
    **elementwise.BINARY,
    **elementwise.MADE,
    **layers.CONVOLUTIONS,
    **layers.POOLS,
    **layers.NORMS,
    **layers.PRODUCTS,
    **layers.SAMPLING,
    **moving.REDUCTIONS,
    **moving.MOVES,
    **moving.CONTROL,
    **moving.SIZES,
}

_CONVERTER = "Apple's converter refuses it"
_APPLE = "Apple's runtime gives the same as the portable one: the converter writes another function than torch's"
EXPECTED: dict[str, str] = {
    "convolution.default/18": f"{_CONVERTER}: a transposed convolution in three dimensions",
    "avg_pool2d.default/3": f"{_CONVERTER}: three dimensions",
    "avg_pool2d.default/5": f"{_APPLE}: padding counts always",
    "avg_pool2d.default/6": f"{_CONVERTER}: ceil_mode",
    "avg_pool2d.default/7": f"{_CONVERTER}: ceil_mode",
    "avg_pool2d.default/8": f"{_CONVERTER}: ceil_mode",
    "avg_pool3d.default/1": f"{_APPLE}: padding counts always",
    "avg_pool3d.default/2": f"{_CONVERTER}: ceil_mode",
    "avg_pool3d.default/3": f"{_CONVERTER}: divisor_override",
    "_native_batch_norm_legit_no_training.default/3": f"{_CONVERTER}: no weights in three dimensions",
    "upsample_nearest2d.vec/1": f"{_APPLE}: the middle of a pixel counts, torch's corner does not",
    "amax.default/3": f"{_CONVERTER}: no dimensions",
    "amin.default/3": f"{_CONVERTER}: no dimensions",
    "linalg_vector_norm.default/5": f"{_CONVERTER}: a norm of order 3",
    "topk.default/2": f"{_CONVERTER}: sort",
    "squeeze.dims/1": f"{_CONVERTER}: dimensions that are not of size 1",
    "index.Tensor/3": f"{_CONVERTER}: a mask of three dimensions",
}
"""What does not agree with torch, by entry and number of the try, and why."""

UNREACHED = {
    "_yield": "stands in loops' graphs, where the converter writes it itself",
    "empty.default": "torch has no overload of this name",
    "floordiv.Scalar": "torch has no operation of this name",
    "floordiv.Tensor": "torch has no operation of this name",
    "mod.Scalar": "torch has no operation of this name",
    "mod.Tensor": "torch has no operation of this name",
}
"""Entries that no program of torch leads to."""

_HALF = 4e-3
_BATCH = 3

Kind = Literal["agrees", "refused", "missing", "differs", "mixes"]


@dataclass(frozen=True)
class Outcome:
    """refused: by the converter. missing: by the portable runtime. mixes: a batch is not what its samples are."""

    kind: Kind
    why: str = ""
    any_batch: bool = False
    apple_agrees: bool = False


class Converter:
    """Apple's, and the entries that it has looked up. Its list is as it was after `close`."""

    def __init__(self) -> None:
        from coreai_torch import _aten_to_core

        self._tables = (_aten_to_core._aten_to_core_resolver, _aten_to_core._higher_order_resolver)
        self._originals = [dict(table) for table in self._tables]
        self.entries = {entry for table in self._tables for entry in table}
        self.reached: set[str] = set()
        for table in self._tables:
            table.update({entry: partial(self._noted, entry, lower) for entry, lower in table.items()})

    def close(self) -> None:
        for table, original in zip(self._tables, self._originals, strict=True):
            table.update(original)

    def convert(self, attempt: Try, path: Path) -> torch.nn.Module:
        import coreai.runtime
        import coreai_torch

        module = attempt.call if isinstance(attempt.call, torch.nn.Module) else _Calls(attempt.call)
        dynamic = None if attempt.dynamic is None else (tuple(attempt.dynamic),)
        exported = torch.export.export(module.eval(), attempt.inputs, dynamic_shapes=dynamic)
        if attempt.table:
            exported = exported.run_decompositions(coreai_torch.get_decomp_table())
        names = [f"x{position}" for position in range(len(attempt.inputs))]
        converter = coreai_torch.TorchConverter().add_exported_program(exported_program=exported, input_names=names)
        converter.to_coreai().save_asset(path, coreai.runtime.AIModelAssetMetadata())
        return module

    def _noted(self, entry: str, lower: Callable[..., Any], *args: Any, **options: Any) -> Any:
        self.reached.add(entry)
        return lower(*args, **options)


class _Calls(torch.nn.Module):
    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self._call = call

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self._call(*inputs)


def tried(converter: Converter, attempt: Try) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.aimodel"
        try:
            module = converter.convert(attempt, path)
        except Exception as error:  # whatever Apple's converter and torch's exporter raise
            return Outcome("refused", _reason(error))
        with torch.no_grad():
            want = [value.numpy() for value in _flat(module(*attempt.inputs))]
        try:
            model = load(path, threads=1, cache=False)
            feeds = {one.name: value.numpy() for one, value in zip(model.inputs, attempt.inputs, strict=True)}
            got = list(model.predict(feeds).values())
        except BenchError as error:
            return Outcome("missing", _reason(error))
        half = any(array.dtype == np.float16 for array in [*feeds.values(), *want])
        near = partial(_near, tolerance=max(attempt.tolerance, _HALF if half else 0))
        if len(got) != len(want) or not all(map(near, got, want)):
            same = all(map(near, got, _apples(path, feeds)))
            return Outcome("differs", "another result than torch's", model.any_batch, apple_agrees=same)
        if model.any_batch and not _keeps_samples_apart(model, feeds):
            return Outcome("mixes", "a batch has other results than its samples", model.any_batch)
        return Outcome("agrees", any_batch=model.any_batch)


def _keeps_samples_apart(model: Model, feeds: Mapping[str, np.ndarray]) -> bool:
    draw = np.random.default_rng(0)
    shuffled = {
        name: [array, *(draw.permutation(array.reshape(-1)).reshape(array.shape) for _ in range(_BATCH - 1))]
        for name, array in feeds.items()
    }
    batch = model.predict_batch({name: np.concatenate(arrays) for name, arrays in shuffled.items()})
    for number in range(_BATCH):
        one = model.predict({name: arrays[number] for name, arrays in shuffled.items()})
        if not all(_near(batch[name][number : number + 1], value, 1e-5) for name, value in one.items()):
            return False
    return True


def _apples(path: Path, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What Apple's own runtime for this processor gives."""
    from coreai.authoring import AIModelAsset
    from coreai.runtime import NDArray

    async def run() -> Any:
        async with AIModelAsset.load(path).executable() as model:
            return await model.load_function("main")({name: NDArray(array) for name, array in feeds.items()})

    return [value.numpy() for value in asyncio.run(run()).values()]


def _near(got: np.ndarray, want: np.ndarray, tolerance: float) -> bool:
    a, b = (np.asarray(array).astype(np.float64) for array in (got, want))
    return a.shape == b.shape and np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def _flat(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for member in value or () for tensor in _flat(member)]


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text.partition('.aimodel: ')[2] or text}"[:200]


def in_this_process(package: Path, bytecode: Path, folder: Path) -> dict[str, Any]:
    """In place of the reader's process, which would take a second for each program."""
    from coreai.authoring.context import Context

    return unpack.Unpacked(bytecode, folder, Context()._mlir_context).graphs()


def all_tried(tell: Callable[[str], object]) -> tuple[dict[str, Outcome], Converter]:
    """Every try by its name, `entry/number`."""
    converter = Converter()
    outcomes: dict[str, Outcome] = {}
    original, reader.unpacked = reader.unpacked, in_this_process
    try:
        for entry, attempts in GROUPS.items():
            for number, attempt in enumerate(attempts):
                outcomes[f"{entry}/{number}"] = outcome = tried(converter, attempt)
                if outcome.kind != "agrees":
                    tell(f"{entry}/{number}: {outcome.kind}: {outcome.why} {EXPECTED.get(f'{entry}/{number}', '')}")
    finally:
        reader.unpacked = original
        converter.close()
    return outcomes, converter


def counts(outcomes: Mapping[str, Outcome], converter: Converter) -> list[str]:
    """The lines that say how many entries and how many tries agree."""
    kinds = Counter(outcome.kind for outcome in outcomes.values())
    lacking = {name.rpartition("/")[0] for name, o in outcomes.items() if o.kind in ("missing", "mixes")}
    lacking |= {name.rpartition("/")[0] for name, o in outcomes.items() if o.kind == "differs" and not o.apple_agrees}
    agree = {name.rpartition("/")[0] for name, outcome in outcomes.items() if outcome.kind == "agrees"} - lacking
    agree |= converter.reached - lacking - set(GROUPS)
    reached = converter.reached & agree
    return [
        f"{len(reached)} of {len(converter.entries)} entries of Apple's list agree with torch",
        f"not reached: {', '.join(sorted(converter.entries - converter.reached)) or 'none'}",
        f"reached and lacking: {', '.join(sorted(lacking)) or 'none'}",
        f"{kinds['agrees']} of {len(outcomes)} tries agree; Apple's converter refuses {kinds['refused']}; "
        f"{kinds['differs']} differ from torch; {kinds['missing']} cannot run; {kinds['mixes']} mix samples",
        f"{sum(outcome.any_batch for outcome in outcomes.values())} run a batch at once",
    ]


def unlike(outcomes: Mapping[str, Outcome], converter: Converter) -> list[str]:
    """What is another way than it is listed."""
    failing = {name for name, outcome in outcomes.items() if outcome.kind != "agrees"}
    lines = [f"not listed: {name}: {outcomes[name]}" for name in sorted(failing - EXPECTED.keys())]
    lines += [f"listed, and agrees: {name}" for name in sorted(EXPECTED.keys() - failing)]
    for name in sorted(failing & EXPECTED.keys()):
        outcome, reason = outcomes[name], EXPECTED[name]
        if (outcome.kind == "refused") != reason.startswith(_CONVERTER) or outcome.apple_agrees != reason.startswith(
            _APPLE
        ):
            lines.append(f"listed for another reason: {name}: {outcome}")
    lines += [f"not reached: {entry}" for entry in sorted(converter.entries - converter.reached - UNREACHED.keys())]
    return lines + [f"reached: {entry}" for entry in sorted(UNREACHED.keys() & converter.reached)]


def main() -> int:
    def tell(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    outcomes, converter = all_tried(tell)
    wrong = unlike(outcomes, converter)
    for line in [*counts(outcomes, converter), *wrong]:
        tell(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
