"""Trains or evaluates for as long as it is told on standard input, again and again, and prints how fast that was.

python -m tests.benchmarks.beside training|evaluation default|ours

The first number says that it is warm. `default`: as OpenMP and ONNX Runtime have it by themselves; OpenMP is loaded, by
torch, before this project can say how to wait.
"""

import sys
import time

NETWORK, BATCH, WARM_UP = "mobilenet_v2", 64, 3


class Turns:
    """Called after each step: prints steps a second where the time is over, and waits for the next one."""

    def __init__(self) -> None:
        self._seconds, self._least, self._steps, self._since = 0.0, WARM_UP, 0, time.perf_counter()

    def __call__(self, *progress: int) -> None:
        self._steps += 1
        taken = time.perf_counter() - self._since
        if taken < self._seconds or self._steps < self._least:
            return
        sys.stdout.write(f"{self._steps / taken}\n")
        sys.stdout.flush()
        if not (line := sys.stdin.readline()):
            sys.exit()
        self._seconds, self._least, self._steps, self._since = float(line), 1, 0, time.perf_counter()


def training() -> None:
    """The project's own, with its threads that decode and augment the embedded digits, 32x32."""
    import numpy as np

    import coreml_prune_bench.models.networks  # noqa: F401
    from coreml_prune_bench.bench.training_images import TrainingImages
    from coreml_prune_bench.data import open_data
    from coreml_prune_bench.models.config import TrainingConfig
    from coreml_prune_bench.models.registry import get_network
    from coreml_prune_bench.models.training import train
    from coreml_prune_bench.models.weights import untrained_model

    data = open_data("digits")
    assert data.train is not None
    images = TrainingImages(data, data.train, np.arange(len(data.train)))
    config = TrainingConfig(epochs=10_000, batch_size=BATCH, learning_rate=1e-6)
    train(untrained_model(get_network(NETWORK), 10), images, config, order_seed=0, progress=Turns())


def evaluation(way: str) -> None:
    """The portable runtime on a package of 64x64 images, or ONNX Runtime by itself on the same graph."""
    import tempfile
    from pathlib import Path

    import numpy as np
    import onnxruntime

    import coreml_prune_bench.models.networks  # noqa: F401
    from coreml_prune_bench.models.conversion import to_coreml
    from coreml_prune_bench.models.registry import get_network
    from coreml_prune_bench.models.weights import untrained_model
    from coreml_prune_bench.runtimes import portable

    images = np.zeros((BATCH, 64, 64, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        package, graph = Path(folder, "m.mlpackage"), Path(folder, "m.onnx")
        to_coreml(untrained_model(get_network(NETWORK), 10).eval(), 64).save(str(package))
        model = portable.load(package, cache=False)
        model.to_onnx(graph)
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    turn = Turns()
    while True:
        if way == "ours":
            model.predict_batch({"image": images})
        else:
            session.run(None, {"image": images})
        turn()


if __name__ == "__main__":
    work, way = sys.argv[1:]
    if way == "default":
        import torch  # noqa: F401
    import coreml_prune_bench  # noqa: F401

    if work == "training":
        training()
    else:
        evaluation(way)
