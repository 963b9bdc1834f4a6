"""A pytest plugin: the tests as on a Mac, on the stand-in (`make test-macos`).

This process has macOS's platform, tools in PATH and native module; those that tests start have Linux's, so what runs in
them shows nothing of a Mac. What is listed here needs a real Mac or a real Linux, with the reason; everything else has
to pass.
"""

import importlib
import importlib.util
import tempfile
from dataclasses import replace

import pytest

from coreml_prune_bench.testing.lies import plausible
from coreml_prune_bench.testing.system import enter_with_real_time

_FIRST = ("torch", "datasets", "huggingface_hub.hf_api", "coreml_prune_bench.data.hub")
_IF_THERE = ("coreai.runtime", "coreai.authoring", "coreai_torch")
"""Imported before the platform is another: they look for its libraries by their names."""

_NO_CORE_ML = "of a machine without Core ML"
SKIPPED = {
    "test_doctor.py::test_compute_devices_as_coremltools_tells_them": _NO_CORE_ML,
    "test_doctor.py::test_the_command": _NO_CORE_ML,
    "test_mac_faults.py::test_doctor_says_why_core_ml_does_not_load": _NO_CORE_ML,
    "test_install.py::test_uninstall_leaves_coremltools_as_it_was": _NO_CORE_ML,
    "test_install.py::test_it_does_not_claim_to_be_a_mac": _NO_CORE_ML,
    "test_install.py::test_macos_is_refused_unless_forced": _NO_CORE_ML,
    "test_command.py::test_without_core_ml_it_says_so": _NO_CORE_ML,
    "test_parity.py::test_without_core_ml_it_says_so": _NO_CORE_ML,
    "test_hostile.py::test_without_apple_s_packages_a_line_says_how_to_get_them": "of Linux on x86-64",
    "test_cache.py::test_a_translated_package_stays_while_it_is_loaded": "the stand-in translates a package more",
}
"""By a part of a test's name: why it cannot run here."""


def pytest_configure(config: pytest.Config) -> None:
    there = [name for name in _IF_THERE if importlib.util.find_spec(name.partition(".")[0])]
    for name in (*_FIRST, *there):
        importlib.import_module(name)
    # Without Apple's GPU: torch's own code for it is not in this torch.
    enter_with_real_time(replace(plausible(tempfile.mkdtemp(prefix="stand-in-")), mps="none"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for part, reason in SKIPPED.items():
            if part in item.nodeid:
                item.add_marker(pytest.mark.skip(reason=reason))
