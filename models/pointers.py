"""Files that stand for others which were never fetched: a clone without Git LFS or git-annex has some text there."""

from pathlib import Path

_MOST_BYTES = 1024
"""Git LFS' own limit for a pointer; anything larger is read no further."""

_FETCHED_BY = {
    b"version https://git-lfs.github.com/spec/": ("Git LFS", "git lfs pull"),
    b"version https://hawser.github.com/spec/": ("Git LFS", "git lfs pull"),  # as its first versions called it
    b"/annex/objects/": ("git-annex", "git annex get"),
}
"""How a pointer begins, whose it is, and what fetches the file."""


def pointer_problem(path: Path) -> str | None:
    """What is wrong and what to do, to stand behind the file's name; None where the file is no pointer, or is none."""
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return None
        content = path.read_bytes()
    except (OSError, ValueError):  # no name that a file can have; whoever reads it says why
        return None
    return pointer_text_problem(content)


def pointer_text_problem(content: bytes) -> str | None:
    """`pointer_problem` of a file's content."""
    for beginning, (system, command) in _FETCHED_BY.items():
        if len(content) <= _MOST_BYTES and content.startswith(beginning):
            return f"is a {system} pointer, some text in place of the file; run '{command}' in its repository"
    return None
