"""The folder of a command's processes: gone with the command, or with the next one where it was killed."""

import signal
import subprocess
import sys
import tempfile

from coreml_prune_bench.cluster.own_folder import own_folder

_KILLED = """
import time
from coreml_prune_bench.cluster.own_folder import own_folder
with own_folder() as folder:
    (folder / "file").touch()
    print(folder, flush=True)
    time.sleep(60)
"""


def test_it_goes_with_the_command_and_another_ones_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with own_folder() as first:
        assert first.stat().st_mode & 0o777 == 0o700
        with own_folder() as second:
            (second / "file").touch()
            assert first.is_dir()
        assert not second.exists()
    assert list(tmp_path.iterdir()) == []


def test_one_of_a_command_that_was_killed_goes_with_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", _KILLED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        left = process.stdout.readline().strip()
        with own_folder():
            assert (tmp_path / left).is_dir()
        process.send_signal(signal.SIGKILL)
    with own_folder() as folder:
        assert {path.name for path in tmp_path.iterdir()} == {folder.name, f"{folder.name}.lock"}
    assert list(tmp_path.iterdir()) == []
