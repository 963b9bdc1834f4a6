"""What one package predicts for a data set that is named by its spec."""

from collections.abc import Mapping
from pathlib import Path

from coreml_prune_bench.accuracy.class_labels import read_class_map
from coreml_prune_bench.accuracy.evaluate import evaluate
from coreml_prune_bench.accuracy.watched import watched_loader
from coreml_prune_bench.core.extras import extras_named
from coreml_prune_bench.data.halves import open_data_or_part
from coreml_prune_bench.models.preprocessing import USUAL, Preprocessing
from coreml_prune_bench.records.predictions import Precision, Predictions
from coreml_prune_bench.runtimes.protocol import RuntimeName


@extras_named()
def evaluate_package(
    package: str | Path,
    data: str,
    *,
    precision: Precision = "float32",
    runtime: RuntimeName = "portable",
    compute_units: str = "all",
    class_map: Mapping[str, str] | str | Path | None = None,
    preprocessing: Preprocessing = USUAL,
    output: str | None = None,
) -> Predictions:
    """The predictions of an image classification package, ours or not, for the val split of `data`.

    data: a spec such as "imagefolder:/data/x". precision is the portable runtime's, compute_units are Core ML's, and
    Core AI's on a Mac.
    class_map: by class of the data the package's label, or where it has none the position of its score, or the file of
    `--class-map`. preprocessing, output: as the options of `accuracy` say.
    Raises BenchError of one line: a package that does not fit the data, a bad image, no Core ML here.
    """
    load = watched_loader(runtime, precision=precision, compute_units=compute_units)
    classes = read_class_map(Path(class_map)) if isinstance(class_map, str | Path) else class_map
    val = open_data_or_part(data).val
    (predictions,), _ = evaluate([Path(package)], val, preprocessing, load=load, class_map=classes, output=output)
    return predictions
