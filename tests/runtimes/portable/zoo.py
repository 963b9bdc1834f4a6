"""Every classification network of torchvision, converted by coremltools and run by the portable runtime and by torch.

Weights are random and seeded, normalization statistics settled, inputs small where the network allows it: it is the
operations and their composition that are checked, not what a network has learned. `make conformance` runs it:

    python -m tests.runtimes.portable.zoo                   every network that has no row of the runtime's present code
    python -m tests.runtimes.portable.zoo swin_t vit_b_16   these, again

Each network is measured in a process of its own and gets one row of the results as soon as it is done: a failure costs
one row, and a run that was stopped goes on where it was. The readable table is written anew after each row. The largest
networks take some 9 GB of memory.
"""

import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn
from torch.fx.experimental.optimization import fuse
from torchvision.models import efficientnet, resnet

from coreml_prune_bench.mlprogram.reader import read
from coreml_prune_bench.models.quiet import quiet_coremltools, silenced
from coreml_prune_bench.runtimes.portable import load
from coreml_prune_bench.runtimes.portable.cache import code_hashes
from coreml_prune_bench.runtimes.portable.session import Model
from tests.packages import settle

quiet_coremltools()
import coremltools as ct  # noqa: E402

from coreml_prune_bench.models.coremltools_fixes import mended_converter  # noqa: E402

_ROOT = Path(__file__).resolve().parents[3]
RESULTS = _ROOT / "results" / "conformance"
PRECISIONS = {"float32": ct.precision.FLOAT32, "float16": ct.precision.FLOAT16}
LARGEST_ERRORS = {"float32": 1e-4, "float16": 1e-2}
"""Of the logits, relative to the largest one: Float32 arithmetic in another order, and constants in Float16."""

_BRANCH_GAIN = 0.3
"""Of residual branches, as trained networks have weak ones. With gains of 1, random networks of 100 layers magnify
rounding: torch's own Float32 was as far from its Float64 as 6e-4 (resnet152) and 1e-2 (efficientnet_v2_l)."""
_SAMPLES = 4
_ROUNDS = 5
_MINUTES = 40

# BatchNorm is settled on 8 images, and on more where the last maps are too small to say what flows through them.
_SETTLING_IMAGES = {"efficientnet": 32}

# Inputs where 64 does not do.
_SIZES = {"inception": 96, "maxvit": 224, "vit_h_14": 56}


@dataclass(frozen=True)
class Row:
    """What was found of one network. `speed` is images a second of the Float32 package over torch eager's, one thread.

    `failure` is empty where both packages compute what torch does. `code` stands for the portable runtime's code.
    """

    network: str
    code: str
    failure: str = ""
    size: int = 0
    parameters: int = 0
    any_batch: bool = False
    error_float32: float | None = None
    error_float16: float | None = None
    speed: float | None = None
    seconds: int = 0
    operations: str = ""


def network_names() -> list[str]:
    return list(torchvision.models.list_models(module=torchvision.models))


def input_size(name: str) -> int:
    return next((size for prefix, size in _SIZES.items() if name.startswith(prefix)), 64)


def build(name: str) -> nn.Module:
    """The network as `settled` leaves it."""
    torch.manual_seed(0)
    size = input_size(name)
    options = {"vit": {"image_size": size}, "inception": {"aux_logits": False}}.get(name.split("_")[0], {})
    images = next((number for prefix, number in _SETTLING_IMAGES.items() if name.startswith(prefix)), 8)
    return settled(torchvision.models.get_model(name, weights=None, **options), size, images=images)


def settled(network: nn.Module, size: int, *, images: int = 8) -> nn.Module:
    """The network in eval mode, with random weights that show and that keep the scale of what flows through them.

    Float16 holds them exactly, so that packages of both precisions have the same ones.
    """
    with torch.no_grad():
        for parameter in network.parameters():
            # Biases of 0, gains of 1 and a head of zeros would hide what is done with them.
            if torch.all(parameter == parameter.flatten()[0]):
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        for normalization in _branch_ends(network):
            normalization.weight.mul_(_BRANCH_GAIN)
    if any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        network = fuse(settle(network, size, images=images))
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.half().float()
    return network.eval()


def _branch_ends(network: nn.Module) -> Iterator[nn.BatchNorm2d]:
    """The normalization at the end of each residual branch, of the networks that are deep enough to need it."""
    for module in network.modules():
        match module:
            case resnet.BasicBlock():
                yield module.bn2
            case resnet.Bottleneck():
                yield module.bn3
            case efficientnet.MBConv() | efficientnet.FusedMBConv():
                yield [inner for inner in module.block.modules() if isinstance(inner, nn.BatchNorm2d)][-1]


def images(samples: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(samples, 3, size, size)).astype(np.float32)


def convert(network: nn.Module, size: int, path: Path, precision: str) -> None:
    """An ML program with the input x [1, 3, size, size] and the output y. Float32, in a package of any precision."""
    example = torch.rand(1, 3, size, size)
    with silenced(), mended_converter():
        # Attention is traced in two ways, which compute the same: the check that they do not is left out.
        traced = torch.jit.trace(network, example, check_trace=False)
        ct.convert(
            traced,
            inputs=[ct.TensorType("x", shape=example.shape, dtype=np.float32)],
            outputs=[ct.TensorType("y", dtype=np.float32)],
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=PRECISIONS[precision],
            skip_model_load=True,
        ).save(str(path))


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def measure(name: str) -> Row:
    """Convert the network to a package of each precision, and compare and time them."""
    started, code = time.monotonic(), _code()
    network, x = build(name), images(_SAMPLES, input_size(name))
    with torch.inference_mode():
        expected = network(torch.from_numpy(x)).numpy()
    errors: dict[str, float] = {}
    speed, any_batch = 0.0, True
    operations: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            path = Path(folder) / f"{precision}.mlpackage"
            convert(network, x.shape[-1], path, precision)
            model = load(path, threads=1, cache=False)
            errors[precision] = relative_error(model.predict_batch({"x": x})["y"], expected)
            any_batch = any_batch and model.any_batch
            operations |= {operation.type for operation in read(path).operations}
            if precision == "float32":
                speed = _speed(network, model, x)
            del model
    wrong = [f"{p}: error {error:.1e}" for p, error in errors.items() if not error < LARGEST_ERRORS[p]]
    if wrong:  # is it the runtime, or a network that magnifies rounding?
        with torch.inference_mode():
            exact = network.double()(torch.from_numpy(x).double()).numpy()
        wrong.append(f"torch's own in float32, against float64: {relative_error(expected, exact):.1e}")
    return Row(
        network=name,
        code=code,
        failure=", ".join(wrong),
        size=x.shape[-1],
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        any_batch=any_batch,
        error_float32=errors["float32"],
        error_float16=errors["float16"],
        speed=speed,
        seconds=round(time.monotonic() - started),
        operations=" ".join(sorted(operations - {"const"})),
    )


def _speed(network: nn.Module, model: Model, x: np.ndarray) -> float:
    """Torch eager's time over the portable runtime's, the fastest of rounds that take turns.

    Processor time of one thread each, so that other work on the machine does not count.
    """
    batch = torch.from_numpy(x)
    times: tuple[list[float], list[float]] = ([], [])

    @torch.inference_mode()
    def eager() -> None:
        network(batch)

    def portable() -> None:
        model.predict_batch({"x": x})

    for _ in range(_ROUNDS):
        for run, taken in zip((eager, portable), times, strict=True):
            started = time.process_time()
            run()
            taken.append(time.process_time() - started)
    return min(times[0]) / min(times[1])


def _code() -> str:
    return hashlib.sha256(json.dumps(code_hashes()).encode()).hexdigest()[:12]


# --- the run over all of them


def run(names: Sequence[str], folder: Path) -> list[Row]:
    """Measure `names`, each in its own process; the rows of all networks that have one."""
    table = folder / "torchvision_zoo.csv"
    rows = {row.network: row for row in read_rows(table)}
    for position, name in enumerate(names, 1):
        row = _measured_apart(name)
        rows[name] = row
        _write(folder, [rows[name] for name in network_names() if name in rows])
        sys.stderr.write(f"{position}/{len(names)} {name}: {row.failure or 'as torch'}, {row.seconds} s\n")
    return list(rows.values())


def _measured_apart(name: str) -> Row:
    command = [sys.executable, "-m", "tests.runtimes.portable.zoo", "--one", name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=_ROOT, timeout=_MINUTES * 60
        )
        if done.returncode == 0:
            return Row(**json.loads(done.stdout.splitlines()[-1]))
        failure = (done.stderr.strip().splitlines() or [f"killed with {done.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        failure = f"not done after {_MINUTES} minutes"
    return Row(network=name, code=_code(), failure=failure, seconds=round(time.monotonic() - started))


def read_rows(table: Path) -> list[Row]:
    if not table.is_file():
        return []
    with table.open(newline="") as file:
        return [_row(cells) for cells in csv.DictReader(file)]


def _row(cells: dict[str, str]) -> Row:
    def number(name: str) -> float | None:
        return float(cells[name]) if cells[name] else None

    return Row(
        network=cells["network"],
        code=cells["code"],
        failure=cells["failure"],
        size=int(cells["size"]),
        parameters=int(cells["parameters"]),
        any_batch=cells["any_batch"] == "True",
        error_float32=number("error_float32"),
        error_float16=number("error_float16"),
        speed=number("speed"),
        seconds=int(cells["seconds"]),
        operations=cells["operations"],
    )


def _write(folder: Path, rows: Sequence[Row]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / ".torchvision_zoo.tmp"
    with unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    unfinished.replace(folder / "torchvision_zoo.csv")
    (folder / "torchvision_zoo.md").write_text(_page(rows))


def _page(rows: Sequence[Row]) -> str:
    right = [row for row in rows if not row.failure]
    operations = sorted({operation for row in rows for operation in row.operations.split()})
    lines = [
        "# torchvision's classification networks over the portable runtime",
        "",
        "Written by `python -m tests.runtimes.portable.zoo`, which `make conformance` runs; random weights, "
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, coremltools {ct.__version__}.",
        "",
        f"{len(rows)} of {len(network_names())} networks were measured, {len(right)} of them compute what torch does: "
        f"the logits of {_SAMPLES} inputs differ by less than {LARGEST_ERRORS['float32']:g} of the largest one from a "
        "Float32 package, by less than "
        f"{LARGEST_ERRORS['float16']:g} from a Float16 package, which is computed in Float32 too. Speed is that of the "
        "Float32 package over torch eager's, one thread each.",
        "",
        "| Network | Input | Parameters, M | Float32 error | Float16 error | Any batch | Speed / torch | Failure |",
        "|---|---:|---:|---:|---:|---|---:|---|",
    ]
    for row in rows:
        numbers = [f"{v:.1e}" if v is not None else "" for v in (row.error_float32, row.error_float16)]
        speed = f"{row.speed:.2f}" if row.speed is not None else ""
        lines.append(
            f"| {row.network} | {row.size} | {row.parameters / 1e6:.1f} | {numbers[0]} | {numbers[1]} |"
            f" {'yes' if row.any_batch else 'no'} | {speed} | {row.failure} |"
        )
    return "\n".join([*lines, "", f"MIL operations that they use ({len(operations)}): {', '.join(operations)}.", ""])


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--one"]:
        sys.stdout.write(json.dumps(asdict(measure(arguments[1]))) + "\n")
        return 0
    done = {row.network for row in read_rows(RESULTS / "torchvision_zoo.csv") if row.code == _code()}
    names = arguments or [name for name in network_names() if name not in done]
    rows = run(names, RESULTS)
    return int(any(row.failure for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
