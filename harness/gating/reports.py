"""A gate's report for those who read it: a terminal, JUnit's XML, GitHub's step summary and annotations, JSON."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from xml.etree import ElementTree

from coreml_prune_bench.core.escaping import markdown_line, one_line, printable, workflow_command
from coreml_prune_bench.gating.checks import Check, Lost, Report, Row
from coreml_prune_bench.report.formats import write_cells

_OUTCOMES = {0: "passed", 1: "failed", 2: "could not be evaluated: rows are not comparable"}
_JUNIT = {"not comparable": "error", "cannot tell": "skipped", "missing": "skipped", "new": "skipped"}
_SHOWN = 10
_MARKS = {"worse": "❌", "missed": "❌", "missing": "❌", "not comparable": "⚠️", "cannot tell": "❔"}


def as_table(report: Report, write: Callable[[Sequence[Mapping[str, object]]], str] = write_cells) -> str:
    """What happened in words; a line a check, without single values that are the same; remarks; the outcome.

    write: lays a table out.
    """
    lines = [headline(report), "", write(_lines(report)), "", *_lost(report), *_remarks(report)]
    return "\n".join([*lines, _summary(report)])


def headline(report: Report) -> str:
    """The worst of it in words, such as "resnet50, sparse-gpt, 50 %: 77.70 -> 61.86 %, lost 15.84 points"."""
    failing = [row for row in report.rows if row.fails]
    shown = failing or [row for row in report.rows if row.verdict in ("not comparable", "cannot tell")]
    if not shown:
        better = report.counts.get("better", 0)
        gained = f", {better} of them better than before" if better else ""
        rows = len(report.rows)
        return one_line(f"nothing is worse in {rows} row{'' if rows == 1 else 's'}{gained}")
    first, rest = shown[0], len(shown) - 1
    what = ("fails" if rest == 1 else "fail") if failing else "cannot be told"
    others = f"; {rest} more row{'' if rest == 1 else 's'} {what}" if rest else ""
    return one_line(f"{first.key.name}: {happened(first)}{others}")


def happened(row: Row) -> str:
    """A row in words, without the evidence."""
    behind = [check for check in row.checks if check.verdict == row.verdict]
    if not behind:
        return f"{row.verdict}: {row.reason}"
    return "; ".join(_check_happened(check) for check in behind)


def _check_happened(check: Check) -> str:
    if check.run is None or check.effect is None:
        return f"{_words(check)} cannot be told: {check.note}"
    run = f"{_number(check.run, check.unit)} {check.unit}"
    if check.required:
        word = {"worse": "missed", "same": "met"}.get(check.verdict, "neither met nor missed for sure")
        return f"{check.metric} is {word}: {run}"
    told = f"{_number(check.baseline, check.unit)} -> {run}"
    if check.verdict == "cannot tell":
        return f"{told}, of which nobody can tell whether it is a difference"
    if check.metric == "accuracy":
        return f"{told}, {'lost' if check.effect < 0 else 'gained'} {abs(check.effect):.2f} points"
    return f"{_words(check)} {told}, {check.effect:+.2f} {check.effect_unit}"


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
            "lost": asdict(row.lost) if row.lost else None,
        }
        rows.append({**asdict(row.key), **content, "checks": checks})
    content = {
        "headline": headline(report),
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
    return (
        "\n\n".join(
            [
                "## Gate",
                markdown_line(headline(report)),
                _summary(report),
                *table,
                *map(markdown_line, [*_lost(report), *_remarks(report)]),
            ]
        )
        + "\n"
    )


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
    if check.run is None or check.effect is None:
        return f"{_words(check)} cannot tell: {check.note}"
    values = f"{_number(check.run, check.unit)} {check.unit}"
    if not check.required:
        values = f"{_number(check.baseline, check.unit)} -> {values}"
    line = f"{_words(check)} {_verdict(check)}: {values}, {check.effect:+.2f} {check.effect_unit}"
    if check.low is not None:
        line += f" ({_interval(check)}), p {_p(check.p_alone)} (corrected {_p(check.p)})"
    if check.low is not None and not check.required:
        line += f", {_reach(check)}"
    return f"{line}; {check.note}" if check.note else line


def told_row(row: Row) -> str:
    """A row in a few words: why it was not compared, and its checks, the ones behind its verdict first."""
    checks = sorted(row.checks, key=lambda check: check.verdict != row.verdict)
    return "\n".join([*([row.reason] if row.reason else []), *(told_check(check) for check in checks)])


def told_lost(lost: Lost) -> str:
    """Images and classes that a row lost, in a line."""
    classes = [f"{c.name} ({c.lost} of {c.images} lost, {c.gained} gained)" for c in lost.classes if c.lost > c.gained]
    parts = [f"{len(lost.images):,} images lost, {lost.gained:,} gained"]
    if classes:
        parts.append(f"most in {', '.join(classes[:_SHOWN])}{_rest(classes)}")
    if lost.images:
        parts.append(f"lost: {', '.join(lost.images[:_SHOWN])}{_rest(lost.images)}")
    return "; ".join(parts)


def _rest(names: Sequence[str]) -> str:
    return f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""


def _lost(report: Report) -> list[str]:
    found = [(row.key.name, row.lost) for row in report.rows if row.lost]
    more = any(len(lost.images) > _SHOWN for _, lost in found)
    lines = [one_line(f"{name}: {told_lost(lost)}") for name, lost in found]
    return [*lines, "--format json has all of them"] if more else lines


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
            shown = check.p is not None or check.required or check.verdict != "same"
            if shown and check.verdict not in without:
                lines.append({"Verdict": _verdict(check), **name, **_columns(check, report)})
    return lines


def _columns(check: Check, report: Report) -> dict[str, str]:
    tested = check.low is not None
    return {
        "Check": _words(check) if check.required else f"{_words(check)}, {check.unit}",
        "Baseline": "-" if check.required else _number(check.baseline, check.unit),
        "Run": "-" if check.run is None else _number(check.run, check.unit),
        "Difference": "-" if check.effect is None else f"{check.effect:+.2f} {check.effect_unit}",
        f"{100 * (1 - 2 * report.alpha):g} % Interval": _interval(check) if tested else "-",
        "p": _p(check.p_alone) if tested else "-",
        f"p of {report.tests}": _p(check.p) if tested else "-",
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


def _words(check: Check) -> str:
    return "Neural Engine share" if check.metric == "neural_engine" else check.metric


def _verdict(check: Check) -> str:
    """Of an absolute rule it is another word."""
    return {"worse": "missed", "same": "met"}.get(check.verdict, check.verdict) if check.required else check.verdict


def _interval(check: Check) -> str:
    return f"{check.low:+.2f} to {check.high:+.2f}"


def _p(p: float | None) -> str:
    if p is None:
        return "-"
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def _reach(check: Check) -> str:
    if check.detectable is None:
        return "no difference would have been seen"
    return f"{check.detectable:.2f} {check.effect_unit} would have been seen"


def _number(value: float, unit: str) -> str:
    return f"{value:,.0f}" if unit == "bytes" else f"{value:.3f}" if unit == "ms" else f"{value:.2f}"
