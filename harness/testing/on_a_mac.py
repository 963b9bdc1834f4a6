"""A command on a scripted Mac: `python -m coreml_prune_bench.testing.on_a_mac doctor`, or any other command.

COREML_STAND_IN=FILE.json is the script (the fields of `Script`), else a plausible Mac; STAND_IN_HOME the home folder
of its user, else a new one. What is scripted to take a time takes it. Processes that it starts are on the same Mac,
for they import this module too.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from coreml_prune_bench.testing.clock import RealClock
from coreml_prune_bench.testing.lies import plausible
from coreml_prune_bench.testing.script import Script, script_of
from coreml_prune_bench.testing.system import enter

SCRIPT, HOME = "COREML_STAND_IN", "STAND_IN_HOME"


def _script() -> Script:
    home = os.environ.get(HOME) or tempfile.mkdtemp(prefix="stand-in-")
    os.environ[HOME] = home
    path = os.environ.get(SCRIPT)
    return script_of(json.loads(Path(path).read_text()), home) if path else plausible(home)


if __name__ in ("__main__", "__mp_main__"):
    enter(_script(), RealClock())

if __name__ == "__main__":
    from coreml_prune_bench.cli.app import main

    sys.argv[0] = "coreml-prune-bench"
    main()
