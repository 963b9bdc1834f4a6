"""The app on the device: answers the JSON-RPC requests that coremltools copies into its container.

python -m coreml_prune_bench.testing.app CONTAINER FOLDER

Behaviour, in FOLDER/devices.json: latency_ms; refuses="Load" or "Prediction" answers with an error; gone_after=N: after
N predictions the device is unplugged.
"""

import itertools
import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from coreml_prune_bench.latency.worker import spare_imports

_LONGEST_SECONDS = 300.0


def main(container: Path, folder: Path) -> None:
    parent = os.getppid()
    behaviour = json.loads((folder / "devices.json").read_text())["behaviour"]
    app = App(behaviour, folder)
    root = container / "Documents" / "modelrunnerd"
    done: set[str] = set()
    until = time.monotonic() + _LONGEST_SECONDS
    # What started it keeps its console, and the app ends with it.
    while os.getppid() == parent and time.monotonic() < until:
        for message in root.glob("requests/messages/*/message.json"):
            if message.parent.name not in done:
                done.add(message.parent.name)
                app.answer(root, json.loads(message.read_text()))
        time.sleep(0.005)


class App:
    def __init__(self, behaviour: dict[str, Any], folder: Path) -> None:
        self._behaviour = behaviour
        self._folder = folder
        self._models: dict[tuple[str, str], Any] = {}
        self._predictions = itertools.count(1)

    def answer(self, root: Path, request: dict[str, Any]) -> None:
        name, params = request["method"].removeprefix("MLModelService."), request["params"]
        resource = root / "requests" / "resources" / request["id"] / request.get("resource", "")
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
        to = root / "responses" / request["id"]
        to.mkdir(parents=True)
        if self._behaviour.get("refuses") == name:
            answer["error"] = {"code": -32002, "message": f"Invalid resource: {name} refused by the script"}
        else:
            method = {"Load": self.load, "Unload": self.unload, "Prediction": self.predict, "ComputePlan": self.plan}[
                name
            ]
            answer["result"] = {"modelID": params["modelID"], **method(params, resource, to)}
            if name == "Prediction":
                answer["resource"] = "outputs.bin"
        (to / "message.part").write_text(json.dumps(answer))
        os.replace(to / "message.part", to / "message.json")

    def load(self, params: dict[str, Any], resource: Path, to: Path) -> dict[str, Any]:
        from coreml_prune_bench.runtimes import portable
        from coreml_prune_bench.runtimes.portable.native import compiled

        assert resource.suffix == ".mlmodelc"
        package = compiled.package_in(resource)
        self._models[_key(params)] = (portable.load(package, threads=1, cache=False), package)
        return {"duration": 750_000_000, "isCached": False}

    def unload(self, params: dict[str, Any], resource: Path, to: Path) -> dict[str, Any]:
        del self._models[_key(params)]
        return {}

    def predict(self, params: dict[str, Any], resource: Path, to: Path) -> dict[str, Any]:
        model, _ = self._models[_key(params)]
        content = resource.read_bytes()
        inputs = {name: _array(told, content) for name, told in params["inputs"].items()}
        outputs, buffer = {}, b""
        for name, value in model.predict(inputs).items():
            told = {"offset": len(buffer), "size": value.nbytes}
            strides = [stride // value.itemsize for stride in value.strides]
            outputs[name] = {"dataType": "Float32", "shape": list(value.shape), "strides": strides, "storage": told}
            buffer += np.ascontiguousarray(value, np.float32).tobytes()
        (to / "outputs.bin").write_bytes(buffer)
        if next(self._predictions) == self._behaviour.get("gone_after"):
            threading.Timer(0.2, (self._folder / "gone").touch).start()
        return {
            "outputs": outputs,
            "duration": round(1e6 * self._behaviour.get("latency_ms", 0.5)),
            "resource": "outputs.bin",
        }

    def plan(self, params: dict[str, Any], resource: Path, to: Path) -> dict[str, Any]:
        spare_imports()
        from coremltools.models.ml_program.experimental.model_structure_path import map_model_structure_to_path

        from coreml_prune_bench.runtimes.portable.native.structure import model_structure

        key = next(key for key in self._models if key[0] == params["modelID"])
        infos = []
        for operation, path in map_model_structure_to_path(
            model_structure=model_structure(self._models[key][1]), components=[]
        ):
            if operation.operator_name == "const" or operation.operator_name.startswith("constexpr_"):
                continue
            engine = {"neuralEngine": {"totalCoreCount": 16}}
            usage = {"preferred": engine, "supported": [{"cpu": {}}, {"gpu": {}}, engine]}
            infos.append({"deviceUsage": usage, "estimatedCost": 0.01, "path": path.to_dict()})
        return {"infos": infos}


def _key(params: dict[str, Any]) -> tuple[str, str]:
    return params["modelID"], params["computeUnits"]


def _array(told: dict[str, Any], content: bytes) -> np.ndarray:
    storage = told["storage"]
    dtype = np.dtype(told["dataType"].lower())
    return np.frombuffer(content, dtype, storage["size"] // dtype.itemsize, storage["offset"]).reshape(told["shape"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    shutil.rmtree(sys.argv[1], ignore_errors=True)
