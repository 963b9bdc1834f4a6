"""The consecutive stages of a network, for algorithms that walk it: from a torch.fx trace, cut where one tensor lives.

A residual block, a transformer's block or a dense block lies between two cuts; what is a plain chain of blocks is cut
between them, and not inside them, so that a stage is what its author made a module of. A module whose code cannot be
traced is taken as a whole, and only where that is the network itself there are no stages.
"""

import operator
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from inspect import Parameter, signature
from itertools import groupby
from typing import Any

from torch import fx, nn

from coreml_prune_bench.models.attention import Attention
from coreml_prune_bench.models.errors import CellFailedError
from coreml_prune_bench.models.layers import PrunableLayer

_BLOCK_LAYERS = 6
"""A module of the author's own with this many convolutions and linear layers, or fewer, is one stage: a block."""

_ELEMENTWISE = {
    "relu", "relu_", "relu6", "gelu", "silu", "hardswish", "hardsigmoid", "hardtanh", "leaky_relu", "elu", "mish",
    "sigmoid", "tanh", "dropout",
}  # fmt: skip


def sequential_view(model: nn.Module, name: str) -> nn.Sequential:
    """`model`, which is in eval mode, as its consecutive stages. They share its modules and parameters.

    Inside a stage, layers have the names that they have in the network: the stage "layer1/0" has "layer1.0.conv1".
    name: the network's, for errors. Raises CellFailedError where it cannot be traced.
    """
    graph, places = _trace(model, name)
    nodes = _nodes_that_see_the_image(graph)
    cuts = _cuts(graph, nodes, model)
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    source = next(node for node in graph.nodes if node.op == "placeholder")
    for first, *joined in _joined(_pieces(nodes, 0, cuts, places, model), model):
        piece = [node for piece in (first, *joined) for node in piece]
        # A stage is an attribute: x.half() may not be called as what every module has.
        free = (name for name in _numbered(_name(first, nodes, places)) if not hasattr(nn.Sequential, name))
        name = next(name for name in free if name not in stages)
        result = cuts[piece[-1]]
        stages[name] = _stage(model, piece, source, result)
        source = result
    return nn.Sequential(stages)


# --- the trace

_Places = dict[fx.Node, tuple[str, ...]]
"""Of each node, the modules that it is in: the outermost first, a called layer itself last."""


class _Tracer(fx.Tracer):
    """Takes layers, attention, torch's own modules and those of `opaque` types as a whole."""

    def __init__(self, opaque: set[type[nn.Module]]) -> None:
        super().__init__()
        self._opaque = opaque
        self.inside: list[tuple[str, nn.Module]] = []
        self.places: _Places = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        has_no_children = next(m.children(), None) is None
        own = isinstance(m, Attention) or type(m) in self._opaque
        return has_no_children or own or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        self.inside.append((self.path_of_module(m), m))
        result = super().call_module(m, forward, args, kwargs)
        self.inside.pop()  # left in place by an exception, to be looked at
        return result

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        self.places[node] = tuple(path for path, _ in self.inside)
        return node

    def culprit(self) -> type[nn.Module] | None:
        """The type of the innermost module whose code could not be traced; None for the network itself."""
        traced = [m for path, m in self.inside if not self.is_leaf_module(m, path)]
        return type(traced[-1]) if traced else None


def _trace(model: nn.Module, name: str) -> tuple[fx.Graph, _Places]:
    opaque: set[type[nn.Module]] = set()
    while True:
        tracer = _Tracer(opaque)
        try:
            graph = tracer.trace(model, _defaults(model) or None)
            break
        except Exception as error:  # the network's own code, run on what is no tensor, may raise anything
            culprit = tracer.culprit()
            if culprit is None:
                raise CellFailedError(_not_traceable(name, error)) from error
            opaque.add(culprit)
    _drop_other_inputs(graph)
    (output,) = next(node for node in graph.nodes if node.op == "output").args
    if not isinstance(output, fx.Node):
        raise CellFailedError(_not_traceable(name, TypeError("it returns more than one tensor")))
    fx.GraphModule(model, graph).graph.eliminate_dead_code()
    return graph, tracer.places


def _defaults(model: nn.Module) -> dict[str, Any]:
    """The optional arguments of forward at their defaults, which tracing would take for tensors."""
    given = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    parameters = [p for p in signature(model.forward).parameters.values() if p.kind in given]
    return {p.name: p.default for p in parameters[1:] if p.default is not Parameter.empty}


def _drop_other_inputs(graph: fx.Graph) -> None:
    """Erase optional arguments, and the checks that they have their defaults."""
    others = [node for node in graph.nodes if node.op == "placeholder"][1:]
    dependent = set(others)
    for node in graph.nodes:
        if dependent.intersection(node.all_input_nodes):
            dependent.add(node)
    for node in reversed([node for node in graph.nodes if node in dependent]):
        graph.erase_node(node)


def _not_traceable(name: str, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return (
        f"{name} cannot be cut into stages, which this algorithm walks: torch.fx cannot trace its forward ({reason}); "
        "use post-training or magnitude-pruner, or let forward have no control flow that depends on the image"
    )


# --- where it is cut

_Cuts = dict[fx.Node, fx.Node]
"""After which nodes there is a cut, and the one value that is handed on there."""


def _nodes_that_see_the_image(graph: fx.Graph) -> list[fx.Node]:
    """All others have the same value for every image: they are made again in each stage that uses them."""
    seeing: dict[fx.Node, None] = {}
    for node in graph.nodes:
        if node.op == "placeholder" or any(one in seeing for one in node.all_input_nodes):
            seeing[node] = None
    return [node for node in seeing if node.op not in ("placeholder", "output")]


def _cuts(graph: fx.Graph, nodes: Sequence[fx.Node], model: nn.Module) -> _Cuts:
    image, output = (next(node for node in graph.nodes if node.op == op) for op in ("placeholder", "output"))
    position = {node: number for number, node in enumerate(nodes)} | {output: len(nodes)}
    last_use = {node: max((position[user] for user in node.users), default=-1) for node in (image, *nodes)}
    last_call = _last_calls(nodes, model)
    cuts: _Cuts = {}
    alive = {image}
    called_until = -1  # no cut between two calls of one layer: it belongs to one stage
    for number, node in enumerate(nodes):
        alive = {one for one in alive | {node} if last_use[one] > number}
        called_until = max(called_until, last_call.get(node.target, -1))
        if len(alive) == 1 and called_until <= number:
            (handed_on,) = alive
            if handed_on is not image and not _is_taken_apart(handed_on):
                cuts[node] = handed_on
    return cuts


def _last_calls(nodes: Sequence[fx.Node], model: nn.Module) -> dict[Any, int]:
    """By the names of modules that have parameters: of the last call of one that has any of them."""
    last: dict[nn.Parameter, int] = {}
    called: dict[str, list[nn.Parameter]] = {}
    for number, node in enumerate(nodes):
        if node.op == "call_module":
            called[str(node.target)] = list(model.get_submodule(str(node.target)).parameters())
            last.update(dict.fromkeys(called[str(node.target)], number))
    return {name: max(last[one] for one in parameters) for name, parameters in called.items() if parameters}


def _is_taken_apart(node: fx.Node) -> bool:
    """Whether it is a tuple rather than a tensor, or a number, judged by what is done with it."""
    return any(user.target is operator.getitem and isinstance(user.args[1], int) for user in node.users)


# --- the stages

_Piece = list[fx.Node]


def _pieces(nodes: Sequence[fx.Node], depth: int, cuts: _Cuts, places: _Places, model: nn.Module) -> list[_Piece]:
    """Cut between the calls, `depth` modules deep, that `nodes` are; those of what is no block are cut inside."""

    def called(node: fx.Node) -> object:
        return places[node][depth] if len(places[node]) > depth else node

    pieces: list[_Piece] = []
    waiting: list[_Piece] = []  # calls between which there is no cut
    for call, group in groupby(nodes, called):
        waiting.append(list(group))
        if waiting[-1][-1] not in cuts:
            continue
        if len(waiting) == 1 and isinstance(call, str) and not _is_block(model.get_submodule(call)):
            pieces += _pieces(waiting[0], depth + 1, cuts, places, model)
        else:
            pieces.append([node for group in waiting for node in group])
        waiting = []
    assert not waiting, "the end of the nodes is a cut"
    return pieces


def _is_block(module: nn.Module) -> bool:
    if type(module) is nn.Sequential:
        return False
    return sum(isinstance(layer, PrunableLayer) for layer in module.modules()) <= _BLOCK_LAYERS


def _joined(pieces: list[_Piece], model: nn.Module) -> list[list[_Piece]]:
    """Normalization, activations and dropout go with what is before them."""
    joined: list[list[_Piece]] = []
    for piece in pieces:
        if joined and all(_goes_along(node, model) for node in piece):
            joined[-1].append(piece)
        else:
            joined.append([piece])
    return joined


def _goes_along(node: fx.Node, model: nn.Module) -> bool:
    if node.op != "call_module":
        return getattr(node.target, "__name__", node.target) in _ELEMENTWISE
    module = model.get_submodule(str(node.target))
    normalizes = isinstance(module, nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm)
    return normalizes or type(module).__module__ in ("torch.nn.modules.activation", "torch.nn.modules.dropout")


def _name(piece: _Piece, nodes: Sequence[fx.Node], places: _Places) -> str:
    """The outermost module whose call the stage is, else the first in it; the name of a module may hold no dot."""
    shared = [level[0] for level in zip(*(places[node] for node in piece), strict=False) if len(set(level)) == 1]
    for path in shared:
        if sum(path in places[node] for node in nodes) == len(piece):
            return path.replace(".", "/")
    deeper = (places[node][len(shared)] for node in piece if len(places[node]) > len(shared))
    return next(deeper, piece[0].name).replace(".", "/")


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


def _stage(model: nn.Module, piece: _Piece, source: fx.Node, result: fx.Node) -> fx.GraphModule:
    graph = fx.Graph()
    copies = {source: graph.placeholder("stage_input")}

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies:
            copies[node] = graph.node_copy(node, copied)
        return copies[node]

    for node in piece:
        copied(node)
    graph.output(copies[result])
    return fx.GraphModule(model, graph)


# --- what some layers have no part in


def split_at(stage: nn.Module, layers: Collection[nn.Module]) -> tuple[nn.Module, nn.Module] | None:
    """`stage` as what none of `layers` changes, which returns a tuple, and what takes that tuple and does the rest.

    None where the first part would have no layer with weights of its own, where the stage is not a traced one, and
    where something is changed in place that the other part needs as it was.
    """
    if not isinstance(stage, fx.GraphModule):
        return None
    weights = {id(parameter) for layer in layers for parameter in layer.parameters()}
    changed: set[fx.Node] = set()
    for node in stage.graph.nodes:
        if any(one in changed for one in node.all_input_nodes) or weights & _parameters_of(stage, node):
            changed.add(node)
    apart = [node for node in stage.graph.nodes if node not in changed and node.op != "output"]
    if not any(node.op == "call_module" and _parameters_of(stage, node) for node in apart):
        return None
    if any(_shares_what_it_changes(stage, node, changed) for node in stage.graph.nodes):
        return None
    constants = [node for node in apart if not node.all_input_nodes and node.op != "placeholder"]
    later = [node for node in stage.graph.nodes if node in changed or node.op == "output"]
    handed_on = [
        node
        for node in apart
        if node not in constants and any(one in changed or one.op == "output" for one in node.users)
    ]
    first, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in apart:
        copies[node] = first.node_copy(node, copies.__getitem__)
    first.output(tuple(copies[node] for node in handed_on))
    rest, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in handed_on:
        copies[node] = rest.placeholder(node.name)
    for node in (*constants, *later):
        copies[node] = rest.node_copy(node, copies.__getitem__)
    return _module(stage, first), _module(stage, rest)


def _shares_what_it_changes(stage: fx.GraphModule, node: fx.Node, changed: set[fx.Node]) -> bool:
    """Whether `node` works in place on a value that a node of the other part uses."""
    if not (node.args and isinstance(node.args[0], fx.Node) and _works_in_place(stage, node)):
        return False
    value = node.args[0]
    return any((one in changed) != (node in changed) for one in (value, *value.users))


def _works_in_place(stage: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(stage.get_submodule(str(node.target)), "inplace", False))
    name = getattr(node.target, "__name__", str(node.target))
    return bool(node.kwargs.get("inplace")) or name.endswith("_")  # += is traced as +


def _module(owner: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    module = fx.GraphModule(owner, graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _parameters_of(stage: fx.GraphModule, node: fx.Node) -> set[int]:
    """Identities of the parameters that a node uses by itself."""
    if node.op == "call_module":
        return {id(parameter) for parameter in stage.get_submodule(str(node.target)).parameters()}
    if node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        return {id(getattr(stage.get_submodule(owner), name))}
    return set()
