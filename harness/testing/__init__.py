"""A Mac without a Mac, for tests: the native module that coremltools loads on macOS, and the tools around it.

It predicts with the portable runtime, and for all else (how long that took, what is planned where, what fails, what
`pmset` prints) it follows a `Script`. Everything of coremltools above the native module is the real code.

    with installed(Script({"my-network": Latency(ms=2)})) as mac:      # coremltools alone
        model = ct.models.MLModel("my-network.mlpackage")
        model.predict(...)
        assert model.last_predict_duration_in_nano_seconds == 2_000_000

    enter(Script())                        # this whole process: also sys.platform, the tools in PATH, and the clock
    python -m coreml_prune_bench.testing.on_a_mac doctor      # a command on a scripted Mac

Time is the script's clock, which a prediction moves on by its scripted latency, so no test waits. A process that is
measured from outside (the worker) has the real clock instead, and scripted latencies are then only what the native
module says of itself.

It is never Core ML: records that are made with it say nothing of a Mac.
"""

from coreml_prune_bench.testing.clock import Clock
from coreml_prune_bench.testing.install import StandIn, installed
from coreml_prune_bench.testing.script import Failure, Latency, Script

__all__ = ["Clock", "Failure", "Latency", "Script", "StandIn", "installed"]
