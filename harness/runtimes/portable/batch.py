"""When does an operation keep samples apart, so that a program written for a batch of 1 can run N at once?

A value is *batched* when its leading dimension holds all samples, one after the other: where the program declares K,
it is N * K (K is 1 for a program's inputs, and something else after a reshape or transpose). A rule answers whether
the operation's outputs are batched too. It must answer False wherever it cannot prove it: the program then runs one
sample after the other, which is slower and never wrong. An operation that treats every row along the leading dimension
alike keeps samples apart whatever K is; `samples` is for those that work along it.
"""

from collections.abc import Callable

from coreml_prune_bench.runtimes.portable.graph import Call


def never(call: Call) -> bool:
    """Nothing is known about the operation."""
    return False


def only(parameter: str, *, rank: int = 1) -> Callable[[Call], bool]:
    """Row by row over `parameter`, of at least `rank` dimensions; everything else is the same for all samples."""

    def rule(call: Call) -> bool:
        return call.batched_parameters() == [parameter] and len(call.shape(parameter)) >= rank

    return rule


def broadcast(call: Call) -> bool:
    """NumPy's broadcasting lines dimensions up from the right: the batch has to be leftmost everywhere.

    So every batched value has the output's rank and leading dimension, and no other value brings one of its own.
    """
    shape = call.output_type.shape
    rank = len(shape)
    for parameter in call.operation.inputs:
        for type_, batched in zip(call.types(parameter), call.batched(parameter), strict=True):
            if batched and (len(type_.shape) != rank or type_.shape[:1] != shape[:1]):
                return False
            if not batched and len(type_.shape) == rank and type_.shape[:1] != (1,):
                return False
    return True


def spares_leading(parameter: str, *, default: list[int]) -> Callable[[Call], bool]:
    """Works along the axes in `parameter` (`default` where none are given), which leave x's leading one alone."""

    def rule(call: Call) -> bool:
        rank = len(call.shape("x"))
        return all(axis % rank != 0 for axis in call.ints(parameter, default))

    return rule
