"""The stand-in in a worker process: what `Workers` is given to open a runtime there."""

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path

from coreml_prune_bench.latency.bench import Runtime
from coreml_prune_bench.latency.worker import OpenRuntime
from coreml_prune_bench.testing.devices import put_app_sources
from coreml_prune_bench.testing.install import installed
from coreml_prune_bench.testing.script import Script

_UNTIL_THE_END = contextlib.ExitStack()


def on_stand_in(script: Script, open_runtime: Callable[[], Runtime], project: Path | None = None) -> OpenRuntime:
    """`open_runtime`, on a scripted Mac. project: for devices, a folder in the place of ModelRunner's sources."""
    return functools.partial(_open, script, open_runtime, project)


def _open(script: Script, open_runtime: Callable[[], Runtime], project: Path | None) -> Runtime:
    import coreml_prune_bench.runtimes.portable.translate  # noqa: F401  (now, not while the first step's time runs)

    _UNTIL_THE_END.enter_context(installed(script))
    if project is not None:
        put_app_sources(project)
    return open_runtime()
