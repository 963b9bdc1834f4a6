"""Makes of a copy of a package what an app takes: labels, probabilities, and texts that say what it is.

The program of the network and its weights stay what they were, byte for byte. The same content gives the same bytes.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from coreml_prune_bench.aimodel.programs import is_core_ai, read_package
from coreml_prune_bench.aimodel.reader import DEFINED, METADATA
from coreml_prune_bench.bench.app import AppContent
from coreml_prune_bench.core.errors import CellFailedError, PackageError
from coreml_prune_bench.core.files import write_atomically
from coreml_prune_bench.mlprogram.classifier import add_labels, add_softmax
from coreml_prune_bench.mlprogram.flexible import open_sizes
from coreml_prune_bench.mlprogram.reader import model_file, specification
from coreml_prune_bench.mlprogram.reproducible import name_items_by_content
from coreml_prune_bench.mlprogram.summary import PackageSummary

PREFIX = "coreml-prune-bench."
"""Of what this project says in a package's metadata."""
_ADDED = frozenset({"classify", "softmax", "cast", "const"})


def save_for_app(package: Path, out: Path, content: AppContent, told: Mapping[str, str]) -> None:
    """Copy `package` to `out`, with what `content` says in it and `told` among its metadata, by name.

    A .aimodel has no labels of its own: they stand in its metadata. Raises PackageError where the package does not
    return one array of as many scores as there are labels, CellFailedError where the copy holds another network.
    """
    shutil.copytree(package, out, copy_function=shutil.copyfile)
    if is_core_ai(package):
        _write_core_ai(out, content, told)
    else:
        _write_core_ml(out, content, told)
    saved = _checked(package, out)
    if content.image_sizes:
        _check_sizes(out, saved, content.image_sizes)


def _write_core_ml(package: Path, content: AppContent, told: Mapping[str, str]) -> None:
    model = specification(package)
    if content.labels and model.description.predictedFeatureName:
        raise PackageError(f"{package}: it names its classes already; leave out the labels")
    try:
        if content.image_sizes:
            open_sizes(model, model_file(package).parent / "weights", content.image_sizes)
        if content.softmax:
            add_softmax(model)
        if content.labels:
            add_labels(model, content.labels)
    except PackageError as error:
        raise PackageError(f"{package}: {error}") from error
    texts, metadata = content.texts, model.description.metadata
    metadata.author = texts.get("author", metadata.author)
    metadata.license = texts.get("license", told.get("weights_license", metadata.license))
    metadata.shortDescription = texts.get("description", metadata.shortDescription)
    metadata.versionString = texts.get("version", metadata.versionString)
    if "name" in texts:
        metadata.userDefined["name"] = texts["name"]
    for name, text in told.items():
        metadata.userDefined[PREFIX + name] = text
    write_atomically(model_file(package), model.SerializeToString(deterministic=True))
    name_items_by_content(package)


def _write_core_ai(package: Path, content: AppContent, told: Mapping[str, str]) -> None:
    for what, asked in (("softmax", content.softmax), ("image_sizes", content.image_sizes)):
        if asked:
            raise PackageError(f"{package}: {what}: only a .mlpackage takes that afterwards; leave it out")
    file = package / METADATA
    metadata = json.loads(file.read_text()) if file.is_file() else {}
    licence = {"license": told["weights_license"]} if "weights_license" in told else {}
    texts = {name: content.texts[name] for name in ("author", "license", "description") if name in content.texts}
    metadata |= licence | texts
    own: dict[str, object] = {PREFIX + name: text for name, text in told.items()}
    own |= {name: content.texts[name] for name in ("name", "version") if name in content.texts}
    if content.labels:
        own["labels"] = list(content.labels)
    metadata[DEFINED] = metadata.get(DEFINED, {}) | own
    write_atomically(file, json.dumps(metadata, indent=2, sort_keys=True) + "\n")


def _checked(package: Path, out: Path) -> PackageSummary:
    """`out`, read back: the same weights, stored in the same form, and the same operations but for those at the end."""
    before, after = read_package(package), read_package(out)
    if before.weights != after.weights:
        raise CellFailedError(f"{out}: its weights are not those of {package}")
    for name in before.operations | after.operations:
        added = after.operations.get(name, 0) - before.operations.get(name, 0)
        if added < 0 or (added and name not in _ADDED):
            raise CellFailedError(f"{out}: it has {added:+} {name} operations than {package}")
    return after


def _check_sizes(package: Path, saved: PackageSummary, sizes: Sequence[int]) -> None:
    """It predicts finite numbers for an image of each size."""
    from coreml_prune_bench.runtimes import portable

    (image,) = saved.inputs
    channels = image.shape[-1]
    model = portable.load(package)
    for size in sizes:
        for values in model.predict({image.name: np.full((size, size, channels), 128, np.uint8)}).values():
            numbers = list(values.values()) if isinstance(values, dict) else values
            if not isinstance(values, str) and not np.isfinite(numbers).all():
                raise CellFailedError(f"{package}: it predicts no finite numbers for images of {size} pixels")
