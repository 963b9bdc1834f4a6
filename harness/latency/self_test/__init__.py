"""What is assumed of a Mac, checked on the one at hand: `doctor --self-test`.

    check       one assumption, and what was found
    run         every check in a process of its own, with progress, resumed; the file that comes of it
    scrub       names, serials and folders taken out of what was found
    packages    the small networks that the checks predict with, made here
    native      checks 1 to 9: coremltools' native module
    loading     10 to 12: compiled models, the system's cache
    planning    13 to 15: compute plans and devices
    numbers     16 to 20: results and times on each compute unit
    system      21 to 25: tools, sleep, power, disk
    phone       26 and 27: a connected device
    core_ai     28: the system's Core AI

A check says what it assumes, notes every raw value at once (so that one that aborts leaves them too), and holds, does
not, or does not apply here. It needs no data, no weights and no torch (but for the one of Apple's GPU).
"""
