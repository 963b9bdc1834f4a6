"""Every table of every folder in `results/`, written to one folder: proof that a change did not change them.

    python tests/golden_tables.py BEFORE --checkout /path/to/the/commit/before
    python tests/golden_tables.py AFTER
    diff -r BEFORE AFTER

The program of a checkout is run through its `run_bench.py`, so it works across changes of everything behind that. The
tables' input is always the results of the checkout that this file is in.
"""

import argparse
import contextlib
import io
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALGORITHMS = ("dense", "post-training", "sparse-gpt", "blockwise-reconstruction", "magnitude-pruner")
FORMATS = ("md", "csv", "json", "latex")


def tables() -> list[tuple[str, list[str]]]:
    """(file name, arguments) of everything that is written without measuring."""
    found = []
    folders = sorted({path.parent.parent for path in (ROOT / "results").glob("*/records/*.json")})
    folders += sorted({path.parent.parent for path in (ROOT / "results").glob("*/latency/*.json")} - set(folders))
    for folder in folders:
        where = ["--results", str(folder)]
        for form in FORMATS:
            found += [
                (f"{folder.name}--{kind}.{form}", ["table", "--kind", kind, "--format", form, *where])
                for kind in ("accuracy", "size")
            ]
            found.append(
                (f"{folder.name}--published.{form}", ["table", "--compare", "published", "--format", form, *where])
            )
            found += [
                (f"{folder.name}--against-{name}.{form}", ["table", "--against", name, "--format", form, *where])
                for name in ALGORITHMS
            ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkout", type=Path, default=ROOT)
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    checkout = given.checkout.resolve()
    sys.path[:0] = [str(checkout / "src"), str(checkout)]  # before what is installed, which is this checkout
    program = runpy.run_path(str(given.checkout / "run_bench.py"))["main"]
    for name, arguments in tables():
        text = io.StringIO()
        sys.argv = ["run_bench.py", *arguments]
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text), contextlib.suppress(SystemExit):
            program()
        (given.out / name).write_text(text.getvalue(), encoding="utf-8")
    sys.stderr.write(f"{len(tables())} tables in {given.out}\n")


if __name__ == "__main__":
    main()
