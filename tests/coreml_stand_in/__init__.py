"""A stand-in for Core ML on Apple hardware, for tests only: the native module that coremltools loads on macOS.

It predicts with the portable runtime, and for all else (how long that took, what is planned where, what fails) it
follows a `Script`. Everything of coremltools above the native module is the real code; what the stand-in answers in
coremltools' place are two facts of the operating system, that it is macOS and which.

Time is the script's clock, which a prediction moves on by its scripted latency, so no test waits. A process that is
measured from outside (the worker) has the real clock instead, and scripted latencies are then only what the native
module says of itself.
"""

from tests.coreml_stand_in.clock import Clock
from tests.coreml_stand_in.install import StandIn, installed
from tests.coreml_stand_in.script import Failure, Latency, Script

__all__ = ["Clock", "Failure", "Latency", "Script", "StandIn", "installed"]
