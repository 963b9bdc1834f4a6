"""Where a compute plan puts operations: constants left out, shares by count and by cost, supported devices."""

from collections import Counter
from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

from coreml_prune_bench.core.errors import PackageError
from coreml_prune_bench.latency.placement import placement, share, summed_up
from coreml_prune_bench.mlprogram.summary import read_package
from coreml_prune_bench.records.latency import PlannedOperation
from coreml_prune_bench.runtimes import coreml
from coreml_prune_bench.testing import Script, installed

SCRIPT = Script(placement={"linear": "gpu", "reduce_mean": "cpu", "reshape": "cpu"}, costs={"conv": 0.3, "linear": 0.1})


def planned(package: Path, units: str, script: Script = SCRIPT):
    with installed(script):
        return placement(coreml.compute_plan(coreml.Model(package).compiled.path, units))


def test_every_operation_but_constants_is_placed(package: Path) -> None:
    placed = planned(package, "all")
    operations = read_package(package).operations
    assert Counter(o.type for o in placed.operations) == {
        name: count for name, count in operations.items() if not name.startswith("constexpr_")
    }
    by_type = {operation.type: operation for operation in placed.operations}
    assert by_type["conv"].preferred == "neural_engine"
    assert by_type["linear"].preferred == "gpu"
    assert by_type["linear"].supported == ("cpu", "gpu")
    assert by_type["conv"].supported == ("cpu", "gpu", "neural_engine")
    assert by_type["conv"].name in {name for name in (o.name for o in placed.operations) if name}


def test_shares_by_count_and_by_cost(package: Path) -> None:
    placed = planned(package, "all")
    convs = sum(operation.type == "conv" for operation in placed.operations)
    others = len(placed.operations) - convs - 1
    assert placed.preferred["gpu"] == 1
    assert share(placed, "gpu") == pytest.approx(1 / len(placed.operations))
    assert placed.cost["gpu"] == pytest.approx(0.1 / (0.3 * convs + 0.1 + 0.01 * others))
    assert sum(placed.cost.values()) == pytest.approx(1)
    assert share(placed, "no such device") == 0


def test_compute_units_limit_the_plan(package: Path) -> None:
    assert set(planned(package, "cpu_only").preferred) == {"cpu"}
    assert "neural_engine" not in planned(package, "cpu_and_gpu").preferred
    assert "gpu" not in planned(package, "cpu_and_ne").preferred


def test_a_machine_without_a_neural_engine(package: Path) -> None:
    assert set(planned(package, "all", Script(neural_engine_cores=None)).preferred) == {"cpu"}


def test_nested_blocks_and_compressed_weights(tmp_path: Path) -> None:
    """Operations of a condition's branches count; a sparse weight is a constant."""

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 64))], opset_version=ct.target.iOS17)
    def program(x):
        weight = np.where(np.arange(64 * 64).reshape(64, 64) % 2, 0, 1).astype(np.float32)
        y = mb.linear(x=x, weight=weight)
        positive = mb.greater(x=mb.squeeze(x=mb.reduce_sum(x=x)), y=0.0)
        return mb.cond(pred=positive, _true_fn=lambda: mb.relu(x=y), _false_fn=lambda: mb.exp(x=y))

    config = ct.optimize.coreml.OptimizationConfig(
        global_config=ct.optimize.coreml.OpThresholdPrunerConfig(threshold=1e-3, weight_threshold=10)
    )
    model = ct.convert(program, minimum_deployment_target=ct.target.iOS17)
    ct.optimize.coreml.prune_weights(model, config).save(str(tmp_path / "c.mlpackage"))
    types = Counter(operation.type for operation in planned(tmp_path / "c.mlpackage", "all").operations)
    assert types["relu"] == types["exp"] == types["cond"] == 1
    assert "constexpr_sparse_to_dense" in read_package(tmp_path / "c.mlpackage").operations
    assert not any(name.startswith("const") for name in types)


def test_no_estimates_and_no_program() -> None:
    placed = summed_up([PlannedOperation(name="x", type="conv", preferred="gpu", supported=("gpu",), cost=None)])
    assert placed.cost == {"gpu": 0.0}

    class Other:
        class model_structure:
            program = None

    with pytest.raises(PackageError, match="no ML program"):
        placement(Other())
