"""Random programs of branches, loops and lists that grow, in each other's conditions and bodies, in several functions.

Each is written as a package and, beside it, as Python; both must compute the same. Numbers are multiples of 1/256 and
small, so that Float32 computes them exactly and a comparison cannot fall the other way. `NESTED_PROGRAMS=2000` tries
so many.
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from coreml_prune_bench.runtimes.portable import load
from tests.assembly import Inner, Shape, Writer, assemble
from tests.runtimes.portable.attempts import Attempts
from tests.runtimes.portable.bombs import BOMBS

PROGRAMS = int(os.environ.get("NESTED_PROGRAMS", "30"))
AT_ONCE = 10

Values = dict[str, float]


@dataclass(frozen=True)
class Code:
    """Writes operations and returns the name of their result; and computes that from the values so far."""

    write: Callable[[Writer], str]
    run: Callable[[Values], float]


class Programs:
    """Draws programs. Blocks side by side name their values alike, as converters do."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)

    def block(self, depth: int, visible: tuple[str, ...], place: str) -> Code:
        """Some statements, and one of the values that are then visible."""
        steps: list[tuple[str, Code]] = []
        for number in range(self._draw.randint(1, 3)):
            name = f"{place}v{number}"
            steps.append((name, self._statement(name, depth, visible)))
            visible = (*visible, name)
        result = self._draw.choice(visible[-3:])

        def write(w: Writer) -> str:
            for _, code in steps:
                code.write(w)
            return result

        def run(values: Values) -> float:
            inner = dict(values)
            for name, code in steps:
                inner[name] = code.run(inner)
            return inner[result]

        return Code(write, run)

    def _statement(self, name: str, depth: int, visible: tuple[str, ...]) -> Code:
        kinds = (
            [self._arithmetic] if not depth else [self._arithmetic, self._branch, self._loop, self._loop, self._list]
        )
        return self._draw.choice(kinds)(name, depth, visible)

    def _number(self) -> float:
        return self._draw.randint(-512, 512) / 256

    def _arithmetic(self, name: str, depth: int, visible: tuple[str, ...]) -> Code:
        x, y = self._draw.choice(visible), self._draw.choice([*visible, ""])
        number = self._number()
        type_, compute = self._draw.choice(
            [("add", lambda a, b: a + b), ("sub", lambda a, b: a - b), ("maximum", max), ("minimum", min)]
        )

        def write(w: Writer) -> str:
            made = w(type_, f"{name}wide", (), x=x, y=y or number)
            return w("clip", name, (), x=made, alpha=-8.0, beta=8.0)

        return Code(write, lambda values: min(max(compute(values[x], values[y] if y else number), -8.0), 8.0))

    def _branch(self, name: str, depth: int, visible: tuple[str, ...]) -> Code:
        x, number = self._draw.choice(visible), self._number()
        then, otherwise = (self.block(depth - 1, visible, f"{name}b") for _ in range(2))

        def write(w: Writer) -> str:
            w("greater", f"{name}flag", (), "bool", x=x, y=number)
            blocks: list[Inner] = [([], lambda w: [then.write(w)]), ([], lambda w: [otherwise.write(w)])]
            return w("cond", name, (), pred=f"{name}flag", blocks=blocks)

        return Code(write, lambda values: (then if values[x] > number else otherwise).run(values))

    def _loop(self, name: str, depth: int, visible: tuple[str, ...]) -> Code:
        """Until so many rounds are over, or what the condition computes is too large."""
        start, rounds, most = self._draw.choice(visible), self._draw.randint(0, 3), self._number()
        inside = (*visible, f"{name}x")
        condition = self.block(depth - 1, inside, f"{name}c")
        body = self.block(depth - 1, inside, f"{name}c")

        def again(w: Writer) -> list[str]:
            w("less", f"{name}few", (), "bool", x=f"{name}n", y=rounds)
            w("less_equal", f"{name}small", (), "bool", x=condition.write(w), y=most)
            return [w("logical_and", f"{name}go", (), "bool", x=f"{name}few", y=f"{name}small")]

        def once(w: Writer) -> list[str]:
            return [w("add", f"{name}next", (), "int32", x=f"{name}n", y=1), body.write(w)]

        def write(w: Writer) -> str:
            arguments: list[tuple[str, str, Shape]] = [(f"{name}n", "int32", ()), (f"{name}x", "fp32", ())]
            outputs: list[tuple[str, str, Shape]] = [(f"{name}count", "int32", ()), (name, "fp32", ())]
            blocks: list[Inner] = [(arguments, again), (arguments, once)]
            w.several("while_loop", outputs, loop_vars=[0, start], blocks=blocks)
            return name

        def run(values: Values) -> float:
            count, inner = 0, {**values, f"{name}x": values[start]}
            while count < rounds and condition.run(inner) <= most:
                inner[f"{name}x"] = body.run(inner)
                count += 1
            return inner[f"{name}x"]

        return Code(write, run)

    def _list(self, name: str, depth: int, visible: tuple[str, ...]) -> Code:
        """A vector that every round makes longer by what it computes, and in the end its largest element."""
        start, rounds = self._draw.choice(visible), self._draw.randint(0, 4)
        body = self.block(depth - 1, (*visible, f"{name}x"), f"{name}c")

        def once(w: Writer) -> list[str]:
            w("reduce_max", f"{name}x", (), x=f"{name}l", axes=np.array([0]), keep_dims=False)
            one = w("expand_dims", f"{name}one", (1,), x=body.write(w), axes=np.array([0]))
            longer = w("concat", f"{name}longer", (None,), values=[f"{name}l", one], axis=0)
            return [w("add", f"{name}next", (), "int32", x=f"{name}n", y=1), longer]

        def write(w: Writer) -> str:
            first = w("expand_dims", f"{name}first", (1,), x=start, axes=np.array([0]))
            arguments: list[tuple[str, str, Shape]] = [(f"{name}n", "int32", ()), (f"{name}l", "fp32", (1,))]
            outputs: list[tuple[str, str, Shape]] = [(f"{name}count", "int32", ()), (f"{name}all", "fp32", (None,))]
            blocks: list[Inner] = [
                (arguments, lambda w: [w("less", f"{name}go", (), "bool", x=f"{name}n", y=rounds)]),
                (arguments, once),
            ]
            w.several("while_loop", outputs, loop_vars=[0, first], blocks=blocks)
            return w("reduce_max", name, (), x=f"{name}all", axes=np.array([0]), keep_dims=False)

        def run(values: Values) -> float:
            found = [values[start]]
            for _ in range(rounds):
                found.append(body.run({**values, f"{name}x": max(found)}))
            return max(found)

        return Code(write, run)


def as_function(code: Code) -> Callable[[Writer], list[str]]:
    def write(w: Writer) -> list[str]:
        w("reduce_max", "x", (), x="given", axes=np.array([0]), keep_dims=False)
        return [w("identity", "y", (), x=code.write(w))]

    return write


@pytest.mark.parametrize("first", range(0, PROGRAMS, AT_ONCE))
def test_programs_in_programs(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + AT_ONCE):
        programs = Programs(seed)
        codes = {name: programs.block(seed % 4 + 1, ("x",), name[0]) for name in ("main", "other")}
        package = assemble(
            tmp_path / f"{seed}.mlpackage",
            {"given": (2,)},
            as_function(codes["main"]),
            others={"other": as_function(codes["other"])},
        )
        for name, code in codes.items():
            model = load(package, function=name, cache=False, threads=1)
            for x in (-1.5, 0.25, 2.0):
                (found,) = model.predict({"given": np.array([x - 1, x], np.float32)}).values()
                assert float(found) == code.run({"x": x}), f"seed {seed}, function {name}, x {x}"


# --- packages that ask for hours, or for all memory

REFUSED = {
    "a chain of sizes": "more steps than one of this size may take",
    "more operations than are read": "more than 100,000 operations",
    "many large constants": "MiB of constants",
    "a table of vectors": "its table makes 137,438,953,472 elements of its indices, 2,097,152 are declared",
    "a constant that is filled": "it asks for 15,258.8 MiB of constants",
    "a constant that is one hot": "MiB of constants",
    "constants like a value": "MiB of constants",
    "constants that are multiplied": "MiB of constants",
    "constants that are pooled": "more steps than one of this size may take",
    "values that are filled": "a prediction's values take more than 0.75 GiB",
    "values that are counted": "a prediction's values take more than 0.75 GiB",
    "values that are broadcast": "a prediction's values take more than 0.77 GiB",
    "values that are resized": "a prediction's values take more than 0.75 GiB",
}
RUN = ["loops in conditions", "loops in bodies", "loops in bodies that grow", "branches in branches"]


@pytest.mark.parametrize("bomb", [*REFUSED, *RUN])
def test_a_bomb_runs_or_is_refused(bomb: str, attempts: Attempts, tmp_path: Path) -> None:
    """`bounds` measures all of them."""
    outcome = attempts.outcome(BOMBS[bomb](tmp_path / "bomb.mlpackage"))
    assert outcome == "ran" if bomb in RUN else REFUSED[bomb] in outcome and outcome.startswith("refused: "), outcome
