"""Which score of a package is which class of a data set: by name where the package names its classes, never by chance.

A file of the user's says it where names do not: see `read_class_map`.
"""

import csv
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coreml_prune_bench.core.errors import DataError, PackageError, did_you_mean

ClassMap = Mapping[str, str]
"""By class of the data: the package's label for it, or where it names none the position of its score, from 0."""

_COLUMNS = ["class", "label"]
_SHOWN = 3
_CURE = "--class-map FILE says which label is which class"


def read_class_map(path: Path) -> dict[str, str]:
    """A class map from a file: JSON, {"class": "label", ...}, or CSV whose first line is class,label.

    Raises DataError of one line for a file that cannot be read, or names a class or a label twice.
    """
    expected = 'expected JSON, {"class": "label"}, or CSV whose first line is class,label'
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            pairs = json.loads(text, object_pairs_hook=_Pairs)
            if not isinstance(pairs, _Pairs):
                raise ValueError("it is no object")
        else:
            head, *pairs = [row for row in csv.reader(text.splitlines(), strict=True) if row]
            if [cell.strip() for cell in head] != _COLUMNS:
                raise ValueError(f"its first line is {','.join(head)[:80]!r}")
        read = [(_cell(name), _cell(label)) for name, label in pairs]
    except OSError as error:
        raise DataError(f"--class-map {path}: {error.strerror or error}; {expected}") from error
    except (ValueError, TypeError, csv.Error, RecursionError) as error:
        raise DataError(f"--class-map {path} cannot be read: {error}; {expected}") from error
    if not read:
        raise DataError(f"--class-map {path} is empty; {expected}")
    for what, names in (("class", [name for name, _ in read]), ("label", [label for _, label in read])):
        name, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise DataError(f"--class-map {path} has {what} {name!r} {count} times: expected each once")
    return dict(read)


class _Pairs(list[Any]):
    """A JSON object's names and values, of which none is lost that stands twice."""


def class_order(
    package: Path,
    labels: Sequence[str] | None,
    scores: int,
    classes: Sequence[str],
    class_map: ClassMap | None,
    warn: Callable[[str], None],
) -> list[int]:
    """Where the data set's classes stand among a package's scores. labels: the package's own names of them, if any.

    By `class_map` where there is one. By name where the package has a label for each class, letter by letter or but for
    capitals, spaces, hyphens and underscores. By position where no label is one of the classes, which `warn` is told
    of, and where there are no labels. PackageError where some labels are classes and others are not, and where the
    numbers differ.
    """
    if class_map is not None:
        return _mapped(package, labels, scores, classes, class_map)
    if scores != len(classes) and not labels:
        raise PackageError(
            f"{package}: a class count that does not match: its output has shape [{scores}], the data set has "
            f"{len(classes)} classes"
        )
    if labels is None:
        return list(range(len(classes)))
    for spelled in (str, _letters):
        known, wanted = [spelled(label) for label in labels], [spelled(name) for name in classes]
        if len(set(known)) == len(known) and sorted(known) == sorted(wanted):
            return [known.index(name) for name in wanted]
    found = {_letters(label) for label in labels} & {_letters(name) for name in classes}
    if found or len(labels) != len(classes):
        raise PackageError(f"{package}: {_difference(labels, classes, len(found))}; {_CURE}")
    warn(
        f"{package}: none of its labels ({_listed(labels)}) is one of the data's classes ({_listed(classes)}), so "
        f"that their positions are taken for the classes'; {_CURE}"
    )
    return list(range(len(classes)))


def _mapped(
    package: Path, labels: Sequence[str] | None, scores: int, classes: Sequence[str], class_map: ClassMap
) -> list[int]:
    known = [str(position) for position in range(scores)] if labels is None else list(labels)
    what = "label" if labels is not None else "position of a score"
    if missing := [name for name in classes if name not in class_map]:
        raise PackageError(f"--class-map names no {what} for class {missing[0]!r} of the data")
    if foreign := [name for name in class_map if name not in classes]:
        raise PackageError(f"--class-map: the data has no class {foreign[0]!r}{did_you_mean(foreign[0], classes)}")
    for name in classes:
        count = known.count(class_map[name])
        if count != 1:
            near = did_you_mean(class_map[name], known)
            raise PackageError(
                f"--class-map: {package} has {count} times {what} {class_map[name]!r}, expected once{near}"
            )
    if len(classes) != scores:
        raise PackageError(f"{package}: it has {scores} scores, the data set has {len(classes)} classes")
    return [known.index(class_map[name]) for name in classes]


def _difference(labels: Sequence[str], classes: Sequence[str], found: int) -> str:
    if found and len(set(labels)) < len(labels):
        name, count = Counter(labels).most_common(1)[0]
        return f"{count} of its classes have the label {name!r}, so that labels do not tell them apart"
    spelled = {_letters(name) for name in classes}, {_letters(label) for label in labels}
    lacks = [name for name in classes if _letters(name) not in spelled[1]]
    foreign = [label for label in labels if _letters(label) not in spelled[0]]
    told = [
        *([f"no label for {_listed(lacks)}"] if lacks else []),
        *([f"labels that are no class of the data ({_listed(foreign)})"] if foreign else []),
    ]
    counts = f"{len(labels)} labels, of which {found} are among the data's {len(classes)} classes"
    return f"{counts}: it has {' and '.join(told) or 'several that differ in spelling alone'}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _letters(name: str) -> str:
    """A name as people take it for the same; folders of macOS spell letters with accents in two characters."""
    return unicodedata.normalize("NFC", name).casefold().replace("_", " ").replace("-", " ").strip()


def _cell(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{value!r} is no label")
    return str(value).strip()
