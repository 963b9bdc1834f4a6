"""The files that Core ML Tools' own pruners read."""

import pytest
from coremltools.optimize.coreml import OptimizationConfig
from coremltools.optimize.torch.layerwise_compression import LayerwiseCompressorConfig
from coremltools.optimize.torch.pruning import MagnitudePrunerConfig as OwnPrunerConfig

from coreml_prune_bench.models.config import TrainingConfig
from coreml_prune_bench.models.pruning.blockwise_reconstruction.config import ReconstructionConfig
from coreml_prune_bench.models.pruning.coremltools_yaml import coremltools_yaml
from coreml_prune_bench.models.pruning.magnitude_pruner.config import MagnitudePrunerConfig
from coreml_prune_bench.models.pruning.post_training.config import PostTrainingConfig
from coreml_prune_bench.models.pruning.sparse_gpt.config import SparseGPTConfig
from coreml_prune_bench.models.pruning.task import layer_sparsities
from coreml_prune_bench.models.weights import untrained_model
from tests.tiny_network import TINY

TRAINING = TrainingConfig(epochs=2)
CONFIGS = {
    "unstructured": (PostTrainingConfig(sparsity=0.5), OptimizationConfig),
    "threshold": (PostTrainingConfig(threshold=0.1), OptimizationConfig),
    "n:m": (PostTrainingConfig(n_m_ratio=(2, 4), layers={"features.0": 0}), OptimizationConfig),
    "blocks": (PostTrainingConfig(sparsity=0.5, block_size=2), OptimizationConfig),
    "sparse-gpt": (SparseGPTConfig(sparsity=0.5, layers={"classifier": 0.75}), LayerwiseCompressorConfig),
    "reconstruction": (ReconstructionConfig(sparsity=0.5), LayerwiseCompressorConfig),
    "zeros by magnitude": (ReconstructionConfig(sparsity=0.5, zeros="magnitude"), OptimizationConfig),
    "magnitude": (
        MagnitudePrunerConfig(n_m_ratio=(1, 4), layers={"features.0": 0}, training=TRAINING),
        OwnPrunerConfig,
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("form", [{}, {"quantize_bits": 8}, {"palettize_bits": 4}])
def test_core_ml_tools_reads_the_files(tmp_path, name, form):
    config, reader = CONFIGS[name]
    config = config.model_copy(update=form)
    targets = layer_sparsities(config, TINY, untrained_model(TINY, 10))
    files = coremltools_yaml(config, targets, 640)
    assert set(files) == ({"pruning.yaml", "storage.yaml"} if form else {"pruning.yaml"})
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    own = reader.from_yaml(str(tmp_path / "pruning.yaml"))
    by_layer = own.op_name_configs if reader is OptimizationConfig else own.module_name_configs
    assert len(by_layer) == len(targets)
    if form:
        stored = OptimizationConfig.from_yaml(str(tmp_path / "storage.yaml"))
        assert len(stored.op_name_configs) == len(targets)
