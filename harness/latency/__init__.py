"""How long a prediction takes: the protocol, the process it runs in, and what follows from the samples.

    targets     what is measured: packages on choices of compute units
    steady      when a warm-up has ended
    bench       loads, warms up and times, one visit after the other, in one process
    worker      that process, and what becomes of it when it hangs or dies
    session     rounds over all targets, cool-down, and a record each
    machines    what executes, as records name it
    plan        the protocol in words, with an estimate of its time
    statistics  what the samples say
    runtimes    what `bench` can time: Core ML, and the portable runtime

The command's process imports neither torch nor coremltools: models are loaded in worker processes only.
"""
