"""Elementwise operations: of one tensor, of two, of a tensor and a number."""

import torch

from tests.runtimes.portable.coreai.cases import Try, above, inside, real, tries, whole

aten = torch.ops.aten
X, Y = real(1, 3, 4), real(1, 3, 4, seed=1)
WHOLE, J = whole(1, 3, 4), whole(1, 3, 4, low=1)
H = X.half()

_FUNCTIONS = {
    "abs": (X, H, WHOLE),
    "acos": (inside(1, 5),),
    "acosh": (above(1.1, 1, 5),),
    "asin": (inside(1, 5),),
    "asinh": (X,),
    "atan": (X, H),
    "atanh": (inside(1, 5) * 0.9,),
    "ceil": (X, H),
    "cos": (X, H),
    "cosh": (X,),
    "erf": (X, H),
    "exp": (X, H),
    "exp2": (X,),
    "expm1": (X,),
    "floor": (X, H),
    "isinf": (X * torch.tensor([1.0, float("inf"), 1.0, float("-inf")]),),
    "log": (above(0.1, 1, 5),),
    "log10": (above(0.1, 1, 5),),
    "log1p": (above(0.1, 1, 5),),
    "log2": (above(0.1, 1, 5),),
    "neg": (X, H, WHOLE),
    "reciprocal": (above(0.5, 2, 3), above(0.5, 1, 3)),
    "relu": (X, H, real(5), real(1, 2, 3, 4, 5)),
    "round": (X, torch.tensor([[0.5, 1.5, 2.5, -0.5, -1.5]])),
    "rsqrt": (above(0.1, 1, 5),),
    "sigmoid": (X, H),
    "sign": (X, WHOLE, torch.tensor([[0.0, -0.0, 1.0, -3.0]])),
    "sin": (X, H),
    "sinh": (X,),
    "sqrt": (above(0.1, 1, 5),),
    "tan": (inside(1, 5),),
    "tanh": (X, H),
    "trunc": (X, -X),
    "logical_not": (WHOLE * (WHOLE > 3),),
    "bitwise_not": (WHOLE, WHOLE.to(torch.int8)),
}
UNARY: dict[str, list[Try]] = {
    f"{name}.default": tries(getattr(torch, name), *given) for name, given in _FUNCTIONS.items()
}

_nn = torch.nn.functional
ACTIVATIONS: dict[str, list[Try]] = {
    "gelu.default": [
        *tries(_nn.gelu, X, H),
        *tries(lambda x: _nn.gelu(x, approximate="tanh"), X),
    ],
    "hardsigmoid.default": tries(_nn.hardsigmoid, X * 3, H * 3),
    "hardswish.default": tries(_nn.hardswish, X * 3, H * 3),
    "hardtanh.default": [*tries(_nn.relu6, X * 4), *tries(lambda x: _nn.hardtanh(x, -0.5, 1.5), X, H)],
    "leaky_relu.default": [*tries(_nn.leaky_relu, X), *tries(lambda x: _nn.leaky_relu(x, 0.3), X)],
    "silu.default": tries(_nn.silu, X, H),
    "clamp.default": [
        *tries(lambda x: x.clamp(-1, 2), X, WHOLE),
        *tries(lambda x: x.clamp(min=0.5), X),
        *tries(lambda x: x.clamp(max=0.5), X),
    ],
    "clamp.Tensor": [
        *tries(lambda x, y: torch.clamp(x, y, y + 1), [X, Y]),
        *tries(lambda x, y: torch.clamp(x, max=y), [X, Y]),
    ],
    "round.decimals": tries(lambda x: torch.round(x, decimals=2), X),
}

_PAIRS = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "eq": torch.eq,
    "ne": torch.ne,
    "gt": torch.gt,
    "ge": torch.ge,
    "lt": torch.lt,
    "le": torch.le,
}
_DECOMPOSED = ("add", "sub", "mul")
"""With a number, these are those of two tensors by default."""
_ALIKE = whole(1, 3, 4, low=0, high=3)
_TWO = [
    (X, Y),
    (H, Y.half()),
    (_ALIKE, whole(1, 3, 4, low=0, high=2)),
    (real(1, 3, 1), real(1, 1, 4)),
    (real(1, 2, 3), real(3)),
    (real(2, 3), real(1, 2, 3)),
]
BINARY: dict[str, list[Try]] = {
    **{
        f"{name}.{'default' if name in ('maximum', 'minimum') else 'Tensor'}": tries(function, *_TWO)
        for name, function in _PAIRS.items()
    },
    **{
        f"{name}.Scalar": [
            *tries(lambda x, f=getattr(aten, name).Scalar: f(x, 1.5), X, H, table=name not in _DECOMPOSED),
            *tries(lambda x, f=getattr(aten, name).Scalar: f(x, 1), _ALIKE, table=name not in _DECOMPOSED),
        ]
        for name in _PAIRS
        if name not in ("maximum", "minimum")
    },
    "atan2.default": tries(
        torch.atan2, (X, Y), (torch.tensor([[0.0, 0.0, 1.0, -1.0, -2.0]]), torch.tensor([[1.0, -1.0, 0.0, 0.0, -2.0]]))
    ),
    "div.Tensor": tries(torch.div, (X, above(0.5, 1, 3, 4)), (WHOLE, J), (WHOLE, above(0.5, 4))),
    "div.Scalar": tries(lambda x: aten.div.Scalar(x, 3), X, WHOLE, table=False),
    "true_divide.Tensor": tries(lambda x, y: aten.true_divide.Tensor(x, y), (X, above(0.5, 1, 3, 4)), table=False),
    "div.Tensor_mode": [
        *tries(lambda x, y: torch.div(x, y, rounding_mode="floor"), (X, above(0.5, 1, 3, 4)), (WHOLE, J), (WHOLE, -J)),
        *tries(lambda x, y: torch.div(x, y, rounding_mode="trunc"), (X, above(0.5, 1, 3, 4)), (WHOLE, J), (WHOLE, -J)),
        *tries(lambda x, y: torch.div(x, y, rounding_mode=None), (X, above(0.5, 1, 3, 4))),
    ],
    "floor_divide.default": tries(
        lambda x, y: aten.floor_divide.default(x, y), (WHOLE, J), (X, above(0.5, 1, 3, 4)), table=False
    ),
    "fmod.Tensor": tries(torch.fmod, (X, Y), (WHOLE, J), (WHOLE, -J), (X, above(0.5, 4))),
    "fmod.Scalar": tries(lambda x: torch.fmod(x, 1.5), X, -X),
    "remainder.Tensor": tries(torch.remainder, (X, Y), (WHOLE, J), (WHOLE, -J)),
    "pow.Tensor_Tensor": tries(torch.pow, (above(0.1, 1, 3, 4), Y), (_ALIKE, _ALIKE)),
    "pow.Tensor_Scalar": [*tries(lambda x: x**2, X, WHOLE), *tries(lambda x: x**0.5, above(0.1, 1, 5))],
    "pow.Scalar": tries(lambda x: 2.0**x, X),
    "logical_and.default": tries(torch.logical_and, (_ALIKE, _ALIKE.flip(-1)), (X, X * 0)),
    "logical_or.default": tries(torch.logical_or, (_ALIKE, _ALIKE.flip(-1)), (X, X * 0)),
    "logical_xor.default": tries(torch.logical_xor, (_ALIKE, _ALIKE.flip(-1)), (X, X * 0)),
    "bitwise_and.Tensor": [
        *tries(torch.bitwise_and, (WHOLE, J)),
        *tries(lambda x, y: torch.bitwise_and(x > 0, y > 0), (X, Y)),
    ],
    "bitwise_or.Tensor": [
        *tries(torch.bitwise_or, (WHOLE, J)),
        *tries(lambda x, y: torch.bitwise_or(x > 0, y > 0), (X, Y)),
    ],
    "bitwise_xor.Tensor": [
        *tries(torch.bitwise_xor, (WHOLE, J)),
        *tries(lambda x, y: torch.bitwise_xor(x > 0, y > 0), (X, Y)),
    ],
    "where.self": [
        *tries(lambda x, y: torch.where(x > 0, x, y), (X, Y), (WHOLE, J)),
        *tries(lambda x: torch.where(x > 0, x, torch.zeros(())), X),
        *tries(lambda x, y: torch.where(x > 0, y, 1.0), (real(1, 3, 1), real(1, 1, 4))),
    ],
}
"""Through the default decompositions `x + 1` is an add.Tensor; where torch has an operation with a number, too, that is
tried without them."""

MADE: dict[str, list[Try]] = {
    "_to_copy.default": [
        *tries(lambda x: x.to(torch.int32), X),
        *tries(lambda x: x.to(torch.float16), X),
        *tries(lambda x: x.to(torch.float32), H, WHOLE),
        *tries(lambda x: (x > 0).to(torch.int32), X),
        *tries(lambda x: x.to(torch.bool), WHOLE),
    ],
    "to.dtype": tries(lambda x: aten.to.dtype(x, torch.int32), X, table=False),
    "clone.default": tries(lambda x: x.clone() * 2, X),
    "alias.default": tries(lambda x: aten.alias.default(x) * 2, X, table=False),
    "lift_fresh_copy.default": tries(lambda x: aten.lift_fresh_copy.default(x) * 2, X, table=False),
    "copy.default": tries(lambda x, y: aten.copy.default(x, y), (X, Y), (X, real(1, 1, 4)), table=False),
    "full.default": [
        *tries(lambda x: x + torch.full((3, 4), 2.5), X),
        *tries(lambda x: x * torch.ones(4) + torch.zeros(3, 4), X),
    ],
    "full_like.default": [*tries(lambda x: torch.full_like(x, 3.0) + x, X), *tries(torch.ones_like, WHOLE)],
    "empty.default": [],
    "empty.memory_format": tries(lambda x: torch.empty(3, 4).zero_() + x, X),
    "scalar_tensor.default": tries(lambda x: aten.scalar_tensor.default(2.5) * x, X),
    "arange.start_step": [
        *tries(lambda x: x + torch.arange(4), X),
        *tries(lambda x: x + torch.arange(1, 9, 2), X),
        *tries(lambda x: x * torch.arange(8, 0, -2), X),
        *tries(lambda x: x + torch.arange(0.0, 1.0, 0.25), X),
    ],
    # No complex buffers: Apple's converter ends the process on them.
    "complex.default": tries(lambda x, y: torch.view_as_real(torch.complex(x, y)), (X, Y)),
    "polar.default": tries(lambda x, y: torch.view_as_real(torch.polar(x, y)), (X.abs(), Y)),
    "view_as_complex.default": tries(
        lambda x, y: torch.view_as_real(torch.view_as_complex(x) * torch.view_as_complex(y)),
        (real(1, 3, 2), real(1, 3, 2, seed=5)),
    ),
    "view_as_complex_copy.default": tries(
        lambda x: aten.view_as_real_copy.default(aten.view_as_complex_copy.default(x) * 2), real(1, 3, 2), table=False
    ),
    "view_as_real.default": tries(
        lambda x, y: torch.view_as_real(torch.view_as_complex(x) + torch.view_as_complex(y)),
        (real(1, 3, 2), real(1, 3, 2, seed=5)),
    ),
    "view_as_real_copy.default": tries(
        lambda x: torch.view_as_real(torch.view_as_complex(x.reshape(1, 3, 2, 2)).transpose(1, 2)[:, :1] + 1),
        real(1, 3, 4),
    ),
}
