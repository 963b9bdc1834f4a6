"""What may be sent to somebody else: values without names, numbers of devices and folders of a person."""

import getpass
import os
import platform
import re
import tempfile
from pathlib import Path
from typing import Any

_NUMBERS = (
    (re.compile(r"\b[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\b"), "UUID"),
    (re.compile(r"\b[0-9A-Fa-f]{8}-[0-9A-Fa-f]{16}\b"), "UDID"),
    (re.compile(r"\b(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}\b"), "ADDRESS"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b"), "ADDRESS"),
    (re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.]+\b"), "EMAIL"),
    (re.compile(r'("?[\w ]*(?:serial|udid|uuid)[\w ]*"?\s*[:=]\s*)"?[^",}\n]*"?', re.IGNORECASE), r"\1REMOVED"),
    (re.compile(r"/(?:private/)?var/folders/[^\s\"']+"), "TEMPORARY"),
    (re.compile(r"/(?:Users|home)/[^/\s\"']+"), "~"),
)
_SHORTEST = 3
"""A shorter name of a user or host would be found in other words."""


def scrubbed(value: Any, *, names: tuple[str, ...] = ()) -> Any:
    """A JSON value without this user's and host's names, home and temporary folders, serials; names: others to go."""
    words = dict.fromkeys(names, "NAME")
    for name, instead in ((_user(), "USER"), (platform.node(), "HOST"), (platform.node().partition(".")[0], "HOST")):
        words.setdefault(name, instead)
    folders = {str(Path.home()): "~", os.environ.get("HOME", ""): "~", tempfile.gettempdir(): "TEMPORARY"}

    def text(told: str) -> str:
        for folder in sorted(folders, key=len, reverse=True):
            if len(folder) > 1:
                told = told.replace(folder, folders[folder])
        for word, instead in words.items():
            if len(word) >= _SHORTEST:
                told = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", instead, told)
        for pattern, instead in _NUMBERS:
            told = pattern.sub(instead, told)
        return told

    def of(value: Any) -> Any:
        match value:
            case str():
                return text(value)
            case dict():
                return {text(str(name)): of(member) for name, member in value.items()}
            case list() | tuple():
                return [of(member) for member in value]
        return value

    return of(value)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
