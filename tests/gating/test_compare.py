"""`compare`, and a package gated from a test suite: on packages whose every prediction is known."""

import json
import tomllib
from pathlib import Path

import pytest
import torch

import coreml_prune_bench.gating.package
import coreml_prune_bench.gating.reports  # noqa: F401  (pytester drops what is first imported inside, to import it again)
from coreml_prune_bench.models.conversion import to_coreml
from coreml_prune_bench.models.weights import untrained_model
from tests.tiny_network import TINY

pytest_plugins = ["pytester"]

IDS = {name: [f"val/{name}/{number}.jpg" for number in range(4)] for name in "abc"}


@pytest.fixture(scope="session")
def always(tmp_path_factory):
    """By class: a package that answers with it whatever the image. That of class b has half its last weight zeroed."""
    folder = tmp_path_factory.mktemp("always")
    torch.manual_seed(0)
    model = untrained_model(TINY, 3).eval()
    packages = {}
    for index, name in enumerate("abc"):
        with torch.no_grad():
            model.classifier.bias[:] = torch.tensor([1e4 if other == index else 0.0 for other in range(3)])
            weight = model.classifier.weight.clone()
            if name == "b":
                model.classifier.weight[:, :64] = 0
            packages[name] = folder / f"{name}.mlpackage"
            to_coreml(model, 32).save(str(packages[name]))
            model.classifier.weight[:] = weight
    return packages


def test_two_packages_image_by_image(run_bench, always, images):
    arguments = ("compare", always["a"], always["b"], "--data", f"imagefolder:{images}")
    code, output, errors = run_bench(*arguments, "--json")
    assert (code, errors) == (0, "")
    found = json.loads(output)
    assert (found["images"], found["top1"]) == (12, [pytest.approx(1 / 3)] * 2)
    assert (found["lost"], found["gained"], found["rethought"]) == (IDS["a"], IDS["b"], 4)
    assert found["classes"] == [
        {"name": "a", "images": 4, "lost": 4, "gained": 0},
        {"name": "b", "images": 4, "lost": 0, "gained": 4},
    ]
    changed = [layer for layer in found["layers"] if layer["sparsity"][0] != layer["sparsity"][1]]
    assert [(layer["name"], layer["sparsity"]) for layer in changed] == [("classifier_weight", [0, 0.5])]
    assert len(found["layers"]) == 4
    assert found["row"]["verdict"] == "cannot tell"
    assert found["row"]["checks"][0]["effect"] == 0
    text = run_bench(*arguments)[1]
    assert "of 12 images of imagefolder:" in text
    assert "4 lost, 4 gained, 4 wrong in another way" in text
    assert "lost: val/a/0.jpg, val/a/1.jpg" in text
    assert "| classifier_weight | 0.00 %            | 50.00 %" in text
    assert text.splitlines()[-1] == "verdict: cannot tell"


def test_a_package_against_itself_is_the_same(run_bench, always, images):
    text = run_bench("compare", always["a"], always["a"], "--data", f"imagefolder:{images}")[1]
    assert "0 lost, 0 gained, 0 wrong in another way" in text
    assert "every weight has the same sparsity and size in both" in text
    assert text.splitlines()[-1] == "verdict: same"


def test_a_bad_image_is_skipped_in_both(run_bench, refused, always, images):
    (images / "val" / "a" / "1.jpg").write_bytes(b"")
    arguments = ("compare", always["a"], always["c"], "--data", f"imagefolder:{images}")
    assert "val/a/1.jpg" in refused(*arguments)
    found = json.loads(run_bench(*arguments, "--skip-bad-images", "--json")[1])
    assert found["lost"] == [IDS["a"][0], IDS["a"][2], IDS["a"][3]]
    assert found["gained"] == IDS["c"]
    assert found["skipped"] == ["val/a/1.jpg"]


# --- the pytest fixture


@pytest.fixture
def user_tests(pytester, always, images, monkeypatch):
    """Runs a user's test file of these lines, and pytest's arguments."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the environment's others take seconds to load

    def call(*lines: str, arguments: tuple[str, ...] = ()) -> pytest.RunResult:
        given = {"A": always["a"], "B": always["b"], "DATA": f"imagefolder:{images}"}
        head = [f"{name} = {str(value)!r}" for name, value in given.items()]
        body = [f"    {line}" for line in lines]
        pytester.makepyfile("\n".join([*head, "def test_model(coreml_gate):", *body]))
        return pytester.runpytest_inprocess(
            "-p", "coreml_prune_bench.gating.pytest_plugin", "-p", "no:cacheprovider", *arguments
        )

    return call


def test_the_fixture_writes_a_baseline_when_asked_and_compares_with_it(user_tests, pytester):
    line = 'coreml_gate(A, data=DATA, baseline="baseline.json")'
    missing = user_tests(line)
    missing.assert_outcomes(failed=1)
    missing.stdout.fnmatch_lines(["coreml_gate: no baseline file baseline.json: * pytest's --coreml-gate-update"])
    user_tests(line, arguments=("--coreml-gate-update",)).assert_outcomes(passed=1)
    assert Path(pytester.path / "baseline.json").stat().st_size < 1000
    user_tests(line).assert_outcomes(passed=1)
    user_tests(
        'row = coreml_gate(A, data=DATA, baseline="baseline.json")', 'assert row.verdict == "same"'
    ).assert_outcomes(passed=1)


def test_the_fixture_fails_a_package_that_is_worse(user_tests, pytester, always, images, tmp_path):
    for name in "bc":  # all that is left is class a
        for image in (images / "val" / name).iterdir():
            if not image.name.startswith("0"):
                image.rename(images / "val" / "a" / f"{name}{image.name}")
    found = user_tests("coreml_gate(B, data=DATA, baseline=A)")
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(["*coreml_gate: b: accuracy worse: 83.33 -> 8.33 %, -75.00 points (*"])
    found.stdout.no_fnmatch_line("*Traceback*")
    rules = 'open("gate.toml", "w").write("[accuracy]\\nallowed_loss = 95")'
    user_tests(rules, 'coreml_gate(B, data=DATA, baseline=A, rules="gate.toml")').assert_outcomes(passed=1)


def test_the_fixture_says_when_nobody_can_tell_and_passes(user_tests):
    found = user_tests("coreml_gate(B, data=DATA, baseline=A)")
    found.assert_outcomes(passed=1, warnings=1)
    found.stdout.fnmatch_lines(["*CannotTellWarning: b: accuracy cannot tell: *"])


def test_a_row_that_the_baseline_does_not_have(user_tests):
    user_tests('coreml_gate(A, data=DATA, baseline="baseline.json")', arguments=("--coreml-gate-update",))
    found = user_tests('coreml_gate(A, data=DATA, baseline="baseline.json", row="aa")')
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(["*coreml_gate: baseline.json has no row 'aa'; did you mean 'a'? (*"])


def test_the_plugin_is_registered_under_its_modules_name():

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {
        "coreml_prune_bench.gating.pytest_plugin": "coreml_prune_bench.gating.pytest_plugin"
    }
