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

pytestmark = pytest.mark.xdist_group("keys of cells")  # one process: they share a fixture that takes a while

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


@pytest.fixture(scope="module")
def keys_after(suite, tmp_path_factory) -> dict[object, dict[str, list[str]]]:
    """By change, and without one under "": the build key and the key of each cell."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "harness", site / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    changes = [(change, "", "") if isinstance(change, str) else change for change in [*CHANGES, NETWORK]]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, suite],
        input=json.dumps(changes),
        cwd=site,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return {"": found[""]} | {change: found[str(number)] for number, change in enumerate([*CHANGES, NETWORK])}


NETWORK = "models/networks/resnet50.py"


def changed(keys_after, change) -> tuple[set[str], set[str]]:
    """The cells whose package, and whose record, has another key."""
    before, after = keys_after[""], keys_after[change]
    return tuple({name for name in before if before[name][kind] != after[name][kind]} for kind in (0, 1))


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_changed_module_changes_the_keys_of_what_depends_on_it_and_no_others(keys_after, change):
    built, every_record = CHANGES[change]
    networks = ("mobilenet_v2", "resnet50")
    packages, records = changed(keys_after, change)
    assert packages == {f"{network}: {algorithm}" for network in networks for algorithm in built}
    assert records == (set(keys_after[""]) if every_record else packages)


def test_a_networks_file_changes_the_keys_of_that_network(keys_after):
    packages, records = changed(keys_after, NETWORK)
    assert packages == records == {name for name in keys_after[""] if name.startswith("resnet50: ")}


def test_a_checkout_and_an_installed_copy_have_the_same_keys(keys_after, suite):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, suite], input="[]", capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)[""] == keys_after[""]
