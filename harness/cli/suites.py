"""`suites`: what ships."""

from coreml_prune_bench.cli.options import JsonOption
from coreml_prune_bench.cli.output import show, show_json, tabled


def suites(as_json: JsonOption = False) -> None:
    """The suites that ship: what each is for, how many cells it has and what it costs.

    For example: `suites`, then `run --suite quick`

    A cell is one network, algorithm, config and trial. What it costs was measured or worked out as the suite says.
    """
    from coreml_prune_bench.bench.suite import cells_of, load_suite, shipped_suites

    rows = []
    for name in shipped_suites():
        suite = load_suite(name)
        rows.append(
            {
                "suite": name,
                "cells": cells_of(suite),
                "networks": list(suite.models),
                "weights": suite.weights,
                "data": suite.data.get("default"),
                "cost": suite.cost,
                "description": suite.description,
            }
        )
    if as_json:
        show_json(rows)
        return
    shown = [
        {
            "Suite": row["suite"],
            "Cells": "-" if row["cells"] is None else row["cells"],
            "Data": row["data"] or "--data",
            "Cost": row["cost"] or "-",
            "What For": row["description"],
        }
        for row in rows
    ]
    show(tabled(shown, keep=shown[0]))
