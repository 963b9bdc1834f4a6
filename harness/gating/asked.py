"""What rows have of the absolute rules that are asked of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from coreml_prune_bench.gating.checks import Check
from coreml_prune_bench.gating.limits import Verdict
from coreml_prune_bench.gating.requirements import Requirement, Row, Value
from coreml_prune_bench.gating.rows import AccuracyRow


@dataclass(frozen=True)
class Asked:
    """A rule, and what a row has of it, or why that is not known."""

    rule: Requirement
    found: Value | str

    @property
    def p_missed(self) -> float | None:
        return None if isinstance(self.found, str) else self.rule.p_missed(self.found)

    def check(self, alpha: float, p_missed: float | None) -> Check:
        """p_missed: corrected for the number of tests."""
        rule, found, quantity = self.rule, self.found, self.rule.quantity
        if isinstance(found, str):
            return Check(
                rule.text, "cannot tell", quantity.unit, rule.bound, None, quantity.effect_unit, None,
                note=found, required=True,
            )  # fmt: skip
        verdict: Verdict = "same" if rule.holds(found.value) else "worse"
        alone, met = rule.p_missed(found), rule.p_met(found)
        p = p_alone = None
        if p_missed is not None and alone is not None and met is not None:
            verdict = "worse" if p_missed <= alpha else "same" if met <= alpha else "cannot tell"
            p, p_alone = min(p_missed, met), min(alone, met)
        return Check(
            rule.text,
            verdict,
            quantity.unit,
            rule.bound,
            found.value,
            quantity.effect_unit,
            found.value - rule.bound,
            low=None if found.low is None else found.low - rule.bound,
            high=None if found.high is None else found.high - rule.bound,
            p=p,
            p_alone=p_alone,
            method=found.method,
            required=True,
        )


def dense_of(row: Row, rows: Sequence[AccuracyRow]) -> AccuracyRow | None:
    """The dense row of the same model, on the same images prepared alike, in the same runtime; of several the newest.

    A dense row's own is itself, unless there is a newer one.
    """
    if not isinstance(row, AccuracyRow):
        return None

    def alike(other: AccuracyRow) -> bool:
        images, own = other.images, row.images
        same = (images.fingerprint, images.count, images.skipped, images.view)
        runtime = (other.runtime.name, other.runtime.precision, other.runtime.compute_units)
        return same == (own.fingerprint, own.count, own.skipped, own.view) and runtime == (
            row.runtime.name,
            row.runtime.precision,
            row.runtime.compute_units,
        )

    found = [other for other in rows if other.algorithm == "dense" and other.model == row.model and alike(other)]
    own = [other for other in found if other.suite == row.suite] or found
    return own[-1] if own else None
