"""The commit in a record is that of this project's checkout, never that of a repository that happens to be around."""

import subprocess
from pathlib import Path

import pytest

from coreml_prune_bench.records import provenance as module
from coreml_prune_bench.records.provenance import provenance

IN_A_WHEEL = ".venv/lib/python3.13/site-packages/coreml_prune_bench/records/provenance.py"
AS_A_COPY = "vendor/coreml-prune-bench/harness/records/provenance.py"
IN_A_CHECKOUT = "harness/records/provenance.py"


def git(repository: Path, *arguments: str) -> str:
    command = ["git", "-C", str(repository), "-c", "user.name=n", "-c", "user.email=e", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository of somebody with the module at a place in it; returns its folder."""

    def make(place: str) -> Path:
        root = tmp_path / "repository"
        file = root / place
        file.parent.mkdir(parents=True)
        file.write_text("")
        git(tmp_path, "init", "--quiet", str(root))
        git(root, "add", "--force", ".")
        git(root, "commit", "--quiet", "--message", "theirs")
        monkeypatch.setattr(module, "__file__", str(file))
        return root

    return make


@pytest.mark.parametrize("place", [IN_A_WHEEL, AS_A_COPY])
def test_the_commit_of_a_users_repository_is_not_ours(repository, place):
    repository(place)
    assert provenance().git_commit is None


def test_the_commit_of_our_checkout_with_a_plus_once_its_code_has_changed(repository):
    root = repository(IN_A_CHECKOUT)
    commit = git(root, "rev-parse", "HEAD")
    assert provenance().git_commit == commit
    (root / "notes.txt").write_text("no code")
    assert provenance().git_commit == commit
    (root / IN_A_CHECKOUT).write_text("changed")
    assert provenance().git_commit == f"{commit}+"


def test_a_hook_of_the_users_repository_does_not_lend_its_commit(repository, tmp_path, monkeypatch):
    root = repository(IN_A_CHECKOUT)
    git(tmp_path, "init", "--quiet", "other")
    git(tmp_path / "other", "commit", "--quiet", "--allow-empty", "--message", "theirs")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    found = provenance().git_commit
    monkeypatch.delenv("GIT_DIR")
    assert found == git(root, "rev-parse", "HEAD")


def test_the_installed_version_is_recorded():
    assert provenance().packages["coreml-prune-bench"]
