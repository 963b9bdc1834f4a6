"""SparseGPT, by Core ML Tools' rule, on a walk of our own."""

from coreml_prune_bench.models.pruning.algorithm import Algorithm, register
from coreml_prune_bench.models.pruning.sparse_gpt.config import SparseGPTConfig

register(
    Algorithm(
        config=SparseGPTConfig,
        entry="coreml_prune_bench.models.pruning.sparse_gpt.prune:prune",
        order=20,
        coremltools_yaml="coreml_prune_bench.models.pruning.sparse_gpt.prune:coremltools_yaml",
        # Layers may differ, which costs no bytes and saves the small networks.
        advised={
            "allocation": "sensitivity",
            "batchnorm_samples": 256,
            "hessian_dampening": 0.1,
            "class_rows": 0.3,
        },
    )
)
