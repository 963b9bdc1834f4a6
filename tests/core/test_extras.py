"""What the base leaves out is asked for by the name of its extra, in one line."""

import re
import sys
from importlib.metadata import metadata, requires

import pytest

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.extras import EXTRAS, extras_named


def test_a_missing_module_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    line = r"^this needs torchvision, .* pip install 'coreml-prune-bench\[build\]'$"
    with pytest.raises(BenchError, match=line), extras_named():
        import torchvision.models  # noqa: F401


def test_a_missing_distribution_names_its_extra_and_a_strangers_module_is_a_bug():
    @extras_named()
    def asks(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    with pytest.raises(BenchError, match=r"\[digits\]"):
        asks("scikit-learn")
    with pytest.raises(ModuleNotFoundError):
        asks("somebody_elses")


def test_the_extras_are_the_projects_and_bring_what_they_are_named_for():
    brought: dict[str, set[str]] = {}
    for requirement in requires("coreml-prune-bench") or ():
        name, _, marker = requirement.partition(";")
        for extra in re.findall(r"extra == [\"']([\w-]+)", marker):
            brought.setdefault(extra, set()).add(re.split(r"[<>=\[ ]", name)[0])
    assert set(brought) <= set(metadata("coreml-prune-bench").get_all("Provides-Extra") or ())
    others = {
        "sklearn",
        "huggingface_hub",
        "mlflow",
        "dask",
        "vl_convert",
    }  # modules that distributions of other names bring
    assert {name for name in EXTRAS if name not in brought[EXTRAS[name]]} == others
