"""A gate's report for those who read it: a terminal, JUnit's XML, GitHub's step summary and annotations, JSON."""

import json
from dataclasses import asdict
from xml.etree import ElementTree

from coreml_prune_bench.core.escaping import markdown_line, one_line, printable, workflow_command
from coreml_prune_bench.gating.verdicts import Check, Report, Row
from coreml_prune_bench.report.formats import write_cells

_OUTCOMES = {0: "passed", 1: "failed", 2: "could not be evaluated: rows are not comparable"}
_JUNIT = {"not comparable": "error", "cannot tell": "skipped", "missing": "skipped", "new": "skipped"}
_MARKS = {"worse": "❌", "missing": "❌", "not comparable": "⚠️", "cannot tell": "❔"}


def as_table(report: Report) -> str:
    """A line a check, without single values that are the same; then why rows were not compared, and the outcome."""
    return "\n".join([write_cells(_lines(report)), "", *_remarks(report), _summary(report)])


def as_json(report: Report) -> str:
    """Every row and check as plain numbers under stable names."""
    rows = []
    for row in report.rows:
        checks = [asdict(check) for check in row.checks]
        content: dict[str, object] = {
            "kind": row.kind,
            "verdict": row.verdict,
            "fails": row.fails,
            "reason": row.reason,
        }
        rows.append({**asdict(row.key), **content, "checks": checks})
    content = {
        "outcome": _OUTCOMES[report.exit_code],
        "exit_code": report.exit_code,
        "alpha": report.alpha,
        "tests": report.tests,
        "counts": report.counts,
        "rows": rows,
    }
    return json.dumps(content, indent=2, allow_nan=False)


def as_junit(report: Report) -> str:
    """JUnit XML, a test case a row: failed, an error where it could not be compared, skipped where nobody can tell."""
    cases = [_junit_case(row) for row in report.rows]
    counts = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": sum(case.find("error") is not None for case in cases),
        "skipped": sum(case.find("skipped") is not None for case in cases),
    }
    suites = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "gate", **{k: str(v) for k, v in counts.items()}})
    suite.extend(cases)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True)


def as_github_summary(report: Report) -> str:
    """Markdown for a step summary; without the rows in which nothing changed, which are only counted."""
    lines = _lines(report, without=("same",))
    for line in lines:
        line["Verdict"] = f"{_MARKS.get(line['Verdict'], '')} {line['Verdict']}".strip()
    table = [write_cells(lines)] if lines else []
    return "\n\n".join(["## Gate", _summary(report), *table, *map(markdown_line, _remarks(report))]) + "\n"


def as_github_annotations(report: Report) -> str:
    """A workflow command a row: an error where it fails, a warning where nothing can be said. None for the others."""
    commands = []
    for row in report.rows:
        level = "error" if row.fails else "warning" if row.verdict in ("not comparable", "cannot tell") else None
        if level:
            commands.append(workflow_command(level, f"{row.verdict}: {row.key.name}", told_row(row)))
    return "\n".join(commands)


def told_check(check: Check) -> str:
    """A check in one line, such as "accuracy worse: 80.57 -> 77.86 %, -2.71 points (...)"."""
    values = f"{_number(check.baseline, check.unit)} -> {_number(check.run, check.unit)} {check.unit}"
    line = f"{_words(check.metric)} {check.verdict}: {values}, {check.effect:+.2f} {check.effect_unit}"
    if check.low is not None:
        line += f" ({_interval(check)}), p {_p(check)}, {_reach(check)}"
    return f"{line}; {check.note}" if check.note else line


def told_row(row: Row) -> str:
    """A row in a few words: why it was not compared, or its checks, the ones behind its verdict first."""
    checks = sorted(row.checks, key=lambda check: check.verdict != row.verdict)
    return row.reason or "\n".join(told_check(check) for check in checks)


def _lines(report: Report, without: tuple[str, ...] = ()) -> list[dict[str, str]]:
    lines = []
    for row in report.rows:
        key = row.key
        name = {"Model": key.model, "Algorithm": key.algorithm or "-", "Config": key.config or "-"}
        if any(row.key.place for row in report.rows):
            name["On"] = key.place or "-"
        if not row.checks and row.verdict not in without:
            lines.append({"Verdict": row.verdict, **name, "Check": "-"})
        for check in row.checks:
            if (check.p is not None or check.verdict != "same") and check.verdict not in without:
                lines.append({"Verdict": check.verdict, **name, **_columns(check, report)})
    return lines


def _columns(check: Check, report: Report) -> dict[str, str]:
    tested = check.low is not None
    return {
        "Check": f"{_words(check.metric)}, {check.unit}",
        "Baseline": _number(check.baseline, check.unit),
        "Run": _number(check.run, check.unit),
        "Difference": f"{check.effect:+.2f} {check.effect_unit}",
        f"{100 * (1 - 2 * report.alpha):g} % Interval": _interval(check) if tested else "-",
        "p": _p(check) if tested else "-",
        "Would Have Seen": "-" if check.detectable is None else f"{check.detectable:.2f} {check.effect_unit}",
    }


def _remarks(report: Report) -> list[str]:
    """Why rows have no checks, and what is to be known of a check; rows that share a remark share a line."""
    remarks: dict[str, list[str]] = {}
    for row in report.rows:
        for remark in (row.reason, *(check.note for check in row.checks)):
            if remark:
                remarks.setdefault(one_line(f"{row.verdict}: {remark}"), []).append(one_line(row.key.name))
    return [f"{remark} [{names[0]}{_and_more(names)}]" for remark, names in remarks.items()]


def _and_more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if names[1:] else ""


def _summary(report: Report) -> str:
    counts = ", ".join(f"{count} {verdict}" for verdict, count in report.counts.items())
    tests = f"{report.tests} test{'' if report.tests == 1 else 's'} at {100 * report.alpha:g} % for all together (Holm)"
    return f"gate {_OUTCOMES[report.exit_code]}: {counts}; {tests}"


def _junit_case(row: Row) -> ElementTree.Element:
    name, told = (printable(text) for text in (row.key.name, told_row(row)))
    case = ElementTree.Element("testcase", classname=f"gate.{printable(row.key.model)}", name=f"{row.kind}: {name}")
    if kind := "failure" if row.fails else _JUNIT.get(row.verdict):
        first = told.splitlines()[0] if told else row.verdict
        outcome = ElementTree.SubElement(case, kind, message=f"{row.verdict}: {first}")
        if kind != "skipped":
            outcome.set("type", row.verdict)
            outcome.text = told
    ElementTree.SubElement(case, "system-out").text = told
    return case


def _words(metric: str) -> str:
    return "Neural Engine share" if metric == "neural_engine" else metric


def _interval(check: Check) -> str:
    return f"{check.low:+.2f} to {check.high:+.2f}"


def _p(check: Check) -> str:
    assert check.p is not None
    return "< 0.0001" if check.p < 0.0001 else f"{check.p:.4f}"


def _reach(check: Check) -> str:
    if check.detectable is None:
        return "no difference would have been seen"
    return f"{check.detectable:.2f} {check.effect_unit} would have been seen"


def _number(value: float, unit: str) -> str:
    return f"{value:,.0f}" if unit == "bytes" else f"{value:.3f}" if unit == "ms" else f"{value:.2f}"
