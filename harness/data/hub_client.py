"""The hub's client in a process of its own, which can be ended: its threads and its Rust library cannot.

Run by its path, it is that process: it imports nothing of this project.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


class HubClientError(Exception):
    """What the client raised. kind: the name of its class."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def fetch_files(name: str, revision: str, files: Sequence[str], *, limit_s: float) -> Path:
    """The folder that has these files of a data set at a revision, downloaded as far as they are not there.

    Raises HubClientError, and subprocess.TimeoutExpired after `limit_s` seconds; what has come is kept.
    """
    return Path(_run(["files", name, revision, *files], limit_s))


def fetch_all(name: str, revision: str, *, limit_s: float) -> None:
    """Have `datasets` download and prepare a whole data set, so that loading it finds all. Raises as `fetch_files`."""
    _run(["all", name, revision], limit_s)


def _run(arguments: Sequence[str], limit_s: float) -> str:
    # -P: the folder of this file has modules of its own. Progress goes to standard error, which is shared.
    command = [sys.executable, "-P", __file__, *arguments, str(int(sys.stderr.isatty()))]
    done = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=limit_s)
    lines = done.stdout.decode().splitlines()
    if not lines:
        raise HubClientError("", f"the client ended with exit code {done.returncode}")
    answer = json.loads(lines[-1])
    if "error" in answer:
        raise HubClientError(answer["error"], answer["message"])
    return str(answer["found"])


def _main(what: str, name: str, revision: str, *rest: str) -> dict[str, str]:
    *files, bars = rest
    from huggingface_hub.utils import logging as hub_logging
    from huggingface_hub.utils.tqdm import disable_progress_bars

    hub_logging.set_verbosity_error()
    if bars == "0":
        disable_progress_bars()
    try:
        if what == "files":
            from huggingface_hub import snapshot_download

            found = snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=files)
            return {"found": found}
        import datasets  # type: ignore[import-untyped]
        from datasets.utils import logging as datasets_logging  # type: ignore[import-untyped]

        datasets_logging.set_verbosity_error()
        if bars == "0":
            datasets_logging.disable_progress_bar()
        datasets.load_dataset(name, revision=revision)
        return {"found": ""}
    except Exception as error:  # for the process that waits, whose families of errors are many
        return {"error": type(error).__name__, "message": str(error)}


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(_main(*sys.argv[1:])) + "\n")
