"""Nothing is sent: libraries that report on their users are told not to, before any of them is imported.

docs/privacy.md lists what was found in which library.
"""

import os
import re
import sys
import warnings

OFF = {
    # ONNX Runtime reads it when it is imported, and once: a device id, the names of models, run times, to Microsoft.
    "ORT_DISABLE_TELEMETRY": "1",
    # huggingface-hub (torch's version and the program around it, in every request) and hf-xet (a report a download).
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # datasets: one request more for each data set that is loaded from the hub.
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    # MLflow: which of its functions are called, on which system, to its makers.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Weights & Biases: crashes of its own, to Sentry; offline runs too.
    "WANDB_ERROR_REPORTING": "false",
}
"""Environment variables, and what turns the reporting off."""

_ONNX_RUNTIME = "onnxruntime"
_REPORTS_SINCE = (1, 29)


def turn_off() -> None:
    """Set the variables of OFF that are not set, for this process and those it starts; a value of the user's stays.

    Warns where ONNX Runtime is imported already and has not been told: it cannot be stopped any more.
    """
    too_late = _ONNX_RUNTIME in sys.modules and not os.environ.get("ORT_DISABLE_TELEMETRY")
    for name, value in OFF.items():
        if not os.environ.get(name):
            os.environ[name] = value
    version = str(getattr(sys.modules.get(_ONNX_RUNTIME), "__version__", ""))
    if too_late and _reports(version):
        warnings.warn(
            f"onnxruntime {version} was imported before coreml_prune_bench, and with it its telemetry, which cannot be "
            "turned off afterwards: import coreml_prune_bench first, or set ORT_DISABLE_TELEMETRY=1",
            stacklevel=3,  # whoever imports this package
        )


def _reports(version: str) -> bool:
    """Whether this version of ONNX Runtime has telemetry of its own; a version that cannot be read may have."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is None or (int(numbers[1]), int(numbers[2])) >= _REPORTS_SINCE
