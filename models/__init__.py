"""What is measured: networks, their weights, pruning, fine-tuning and conversion to Core ML.

Nothing here knows suites, records or the command line. Of `harness`, only the errors and the quieting of coremltools
are used; importing it first keeps coremltools quiet.
"""

import harness  # noqa: F401
