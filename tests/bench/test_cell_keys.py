"""A cell's key covers the code that makes and measures it, and no other: modules are changed, and keys compared.

The package is copied, without links, as a wheel would install it; one process changes a module after the other in the
copy and says which keys are others then.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "coreml_prune_bench"

SUITE = """
description = "one config of each algorithm"
models = ["mobilenet_v2", "resnet50"]
weights = "none"
trials = 1
data.default = "digits"

[training]
epochs = 1

[[configs]]
algorithm = "post-training"
sparsity = 0.5

[[configs]]
algorithm = "sparse-gpt"
sparsity = 0.5

[[configs]]
algorithm = "sparse-gpt"
sparsity = 0.5
allocation = "sensitivity"

[[configs]]
algorithm = "blockwise-reconstruction"
sparsity = 0.5

[[configs]]
algorithm = "magnitude-pruner"
sparsity = 0.5
training = { epochs = 1 }
"""

DENSE, FREE, GPT, ALLOCATED, BLOCKS, MAGNITUDE = (
    "dense",
    "post-training",
    "sparse-gpt",
    "sparse-gpt, allocated",
    "blockwise-reconstruction",
    "magnitude-pruner",
)
PRUNED = {FREE, GPT, ALLOCATED, BLOCKS, MAGNITUDE}
ALL = {DENSE, *PRUNED}
NONE: set[str] = set()

# By module, or module and change: the algorithms whose packages have another key then, and whether every record has
# another key whatever its package.
CHANGES = {
    # Seen to change no key, once.
    ("models/pruning/config.py", '"output" if self.dim == 0 else "input"', '"input"'): (PRUNED, False),
    ("models/pruning/post_training/prune.py", "argsort(stable=True)", "argsort(descending=True)"): (
        {FREE, ALLOCATED, BLOCKS},
        False,
    ),
    ("bench/verify.py", "_TOLERANCE = 0.005", "_TOLERANCE = 0.5"): (ALL, False),
    # Reached through an entry string alone.
    "models/pruning/magnitude_pruner/prune.py": ({MAGNITUDE}, False),
    "models/pruning/sparse_gpt/prune.py": ({GPT, ALLOCATED, BLOCKS}, False),
    "models/pruning/blockwise_reconstruction/prune.py": ({BLOCKS}, False),
    "models/pruning/blockwise_reconstruction/config.py": ({BLOCKS}, False),
    # Imported with its folder, which no import statement names.
    "runtimes/portable/ops/convolution.py": (NONE, True),
    # The other rooms that make, check and measure.
    "models/pruning/sensitivity.py": ({ALLOCATED}, False),
    "models/pruning/allocation.py": ({ALLOCATED}, False),
    "models/pruning/coreml.py": (PRUNED, False),
    "models/training.py": (ALL, False),
    "bench/build/dense.py": (ALL, False),
    "bench/build/training.py": (ALL, False),
    "bench/training_images.py": (ALL, False),
    "data/transform.py": (ALL, True),
    "mlprogram/decompress.py": (ALL, True),
    "accuracy/evaluate.py": (NONE, True),
    "records/predictions.py": (NONE, True),
    "core/cache_folder.py": (ALL, True),
    # What tells, counts and compares changes nothing, nor does what is only said of code.
    "records/accuracy.py": (NONE, False),
    "report/accuracy_tables.py": (NONE, False),
    "cli/suite.py": (NONE, False),
    "gating/limits.py": (NONE, False),
    "advice/search.py": (NONE, False),
    "latency/plan.py": (NONE, False),
    "published/table.py": (NONE, False),
    "core/errors.py": (NONE, False),
    "bench/run.py": (NONE, False),
    ("models/training.py", "\nimport ", "\n# a comment\nimport "): (NONE, False),
    ("models/training.py", '"""', '"""Other words. '): (NONE, False),
}

PROGRAM = """
import functools, json, sys
from pathlib import Path

from coreml_prune_bench.accuracy.runtime import Evaluation
from coreml_prune_bench.bench import cells
from coreml_prune_bench.bench.suite import load_suite
from coreml_prune_bench.core import keys

# Images are read once, and of the code only what was changed is read again.
cells.open_data_or_part = functools.cache(cells.open_data_or_part)
hash_of = keys._hash_of


def laid_out(changed=None):
    keys._text_of.cache_clear()
    keys._hash_of = lambda module: (hash_of.__wrapped__ if module == changed else hash_of)(module)
    found = {}
    for cell in cells.lay_out(load_suite(sys.argv[1]), None, evaluation=Evaluation()):  # it keeps what it found out
        name = cell.algorithm + (", allocated" if cell.config and cell.config.allocation == "sensitivity" else "")
        found[f"{cell.subject.network.name}: {name}"] = [cell.build_key, cell.key]
    return found


package = Path(keys.__file__).parents[1]
keys_of = {"": laid_out()}
for number, (module, old, new) in enumerate(json.loads(sys.stdin.read())):
    file = package / module
    text = file.read_text()
    assert old in text, (module, old)
    file.write_text(text.replace(old, new, 1) if old else f"{text}\\nCHANGED = 1\\n")
    keys_of[number] = laid_out(f"{keys.PACKAGE}.{module.removesuffix('.py').replace('/', '.')}")
    file.write_text(text)
print(json.dumps(keys_of))
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "keys.toml"
    path.write_text(SUITE)
    return path


def keys_after(
    changes: list[tuple[str, str, str]], suite: Path, site: Path | None = None
) -> list[dict[str, list[str]]]:
    """The build key and the key of each cell: as the code is, and after each change of it.

    site: where the package is copied to, so that it can be changed; None: the code of this checkout.
    """
    if site is not None:
        shutil.copytree(ROOT / "harness", site / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, suite],
        input=json.dumps(changes),
        cwd=site,
        env=os.environ | ({"PYTHONPATH": str(site)} if site else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout).values())


def test_a_changed_module_changes_the_keys_of_what_depends_on_it_and_no_others(suite, tmp_path):
    networks = ("mobilenet_v2", "resnet50")
    own_file = "models/networks/resnet50.py"
    changes = [*CHANGES, own_file]
    before, *after = keys_after(
        [(change, "", "") if isinstance(change, str) else change for change in changes], suite, tmp_path
    )
    # One table, so that what is wrong is seen beside what is right.
    found = {
        change: tuple({name for name in before if before[name][kind] != keys[name][kind]} for kind in (0, 1))
        for change, keys in zip(changes, after, strict=True)
    }
    expected = {}
    for change, (built, every_record) in CHANGES.items():
        packages = {f"{network}: {algorithm}" for network in networks for algorithm in built}
        expected[change] = (packages, set(before) if every_record else packages)
    of_network = {name for name in before if name.startswith("resnet50: ")}
    expected[own_file] = (of_network, of_network)
    assert found == expected

    # A checkout and an installed copy have the same keys.
    (here,) = keys_after([], suite)
    assert here == before
