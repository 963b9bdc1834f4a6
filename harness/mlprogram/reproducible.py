"""Packages whose bytes follow from what is in them, so that the same build is the same files.

What coremltools saves is not: it draws the manifest's identifiers at random, writes protobuf's maps in an order of each
process's own, notes the day, and leaves the model and its weights to be read by their owner alone.
"""

import json
import stat
import uuid
from pathlib import Path

from coreml_prune_bench.core.files import file_hash, tree_hash, write_atomically
from coreml_prune_bench.mlprogram.reader import model_file, specification

_DAY = "com.github.apple.coremltools.conversion_date"
_NAMESPACE = uuid.UUID("2ccf9761-42b3-481d-92ba-45b63cf64fc4")
"""Of the identifiers below; drawn once, and never to change."""


def make_reproducible(package: Path) -> None:
    """Rewrite, in place, a package that coremltools has saved; it holds the same model, without the day of its making.

    Raises PackageError for what is no package.
    """
    model = specification(package)
    model.description.metadata.userDefined.pop(_DAY, None)
    write_atomically(model_file(package), model.SerializeToString(deterministic=True))
    for folder in (path for path in (package / "Data").rglob("*") if path.is_dir()):
        folder.chmod(stat.S_IMODE(package.stat().st_mode))
    name_items_by_content(package)


def name_items_by_content(package: Path) -> None:
    """Write a package's manifest anew, with identifiers that follow from the items' paths and content.

    It has the layout of coremltools' own library, which writes the manifest anew, in place, whenever it loads one:
    that then changes nothing.
    """
    file = package / "Manifest.json"
    manifest = json.loads(file.read_bytes())
    items = manifest["itemInfoEntries"]
    names = {identifier: _name(package / "Data" / item["path"], item["path"]) for identifier, item in items.items()}
    manifest["itemInfoEntries"] = {names[identifier]: item for identifier, item in items.items()}
    manifest["rootModelIdentifier"] = names[manifest["rootModelIdentifier"]]
    write_atomically(file, json.dumps(manifest, indent=4, sort_keys=True, ensure_ascii=False) + "\n")


def _name(item: Path, place: str) -> str:
    content = tree_hash(item) if item.is_dir() else file_hash(item)
    return str(uuid.uuid5(_NAMESPACE, f"{place} {content}"))
