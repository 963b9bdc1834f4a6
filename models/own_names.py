"""What a file of the user has under a name that is no function of its top level. Nothing of it is executed."""

import ast
from pathlib import Path

from coreml_prune_bench.models.errors import did_you_mean


def named_instead(tree: ast.Module, path: Path, name: str) -> str:
    """What is wrong with `name`, which names no function at the top level of `path`, and what to do."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _class(node, path)
        if isinstance(node, ast.AsyncFunctionDef) and node.name == name:
            return f"{name} is an async function; expected one that returns the network when it is called"
        if isinstance(node, ast.Assign | ast.AnnAssign) and name in _assigned(node):
            return (
                f"{name} is a value, expected a function that returns the network; add to {path.name}: "
                f"def build(): return {name}, and name that"
            )
        if isinstance(node, ast.Import | ast.ImportFrom) and name in _imported(node):
            return (
                f"{name} is imported by {path.name} and not defined in it; name the file that defines it, or add a "
                f"function here that returns what {name} makes"
            )
    if any(isinstance(node, ast.FunctionDef) and node.name == name for node in ast.walk(tree)):
        return f"{path} defines {name} within something else, and no function {name} at its top level"
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    has = f"; it defines {', '.join(functions)}" if 0 < len(functions) <= 5 else ""
    return f"{path} defines no function {name} at its top level" + (did_you_mean(name, functions) or has)


def _class(node: ast.ClassDef, path: Path) -> str:
    """With a function to add: it hands num_classes on where the class takes it."""
    makers = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
    taken = [argument.arg for one in makers for argument in (*one.args.args, *one.args.kwonlyargs)]
    given, handed = ("num_classes=1000", "num_classes=num_classes") if "num_classes" in taken else ("", "")
    return (
        f"{node.name} is a class, expected a function that returns the network; add to {path.name}: "
        f"def build({given}): return {node.name}({handed}), and name that"
    )


def _assigned(node: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}


def _imported(node: ast.Import | ast.ImportFrom) -> set[str]:
    return {alias.asname or alias.name for alias in node.names}
