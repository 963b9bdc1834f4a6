"""A suite as somebody wants it run: which one, with which of its networks, configs, data and trials."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coreml_prune_bench.accuracy.runtime import PORTABLE, Evaluation
from coreml_prune_bench.bench.cells import Cell, lay_out
from coreml_prune_bench.bench.run import RunOptions, run
from coreml_prune_bench.bench.suite import Suite, choose, left_out, load_suite
from coreml_prune_bench.bench.training_options import TrainingOptions
from coreml_prune_bench.core.extras import extras_named
from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.data import DataSet
from coreml_prune_bench.records.chance import chance_levels
from coreml_prune_bench.records.store import Store
from coreml_prune_bench.report.results import Results

if TYPE_CHECKING:
    from coreml_prune_bench.models.distributed import Team


@dataclass(frozen=True)
class SuiteChoice:
    """Which suite, by name, path or as it is, and what is said in place of some of it; as the options of `run`.

    own: networks of the user's (`--model`), beside `models` or in place of the suite's. limit: of val's images.
    """

    suite: str | Suite
    data: list[str] | None = None
    weights: Path | None = None
    models: list[str] | None = None
    own: list[str] | None = None
    algorithms: list[str] | None = None
    trials: int | None = None
    package_formats: list[str] | None = None
    limit: int | None = None

    def load(self) -> Suite:
        """The suite as chosen. Raises SuiteError of one line."""
        keeping = (self.models or ()) if self.own else None
        return choose(
            load_suite(self.suite, keeping=keeping) if isinstance(self.suite, str) else self.suite,
            models=self.models,
            own=self.own,
            algorithms=self.algorithms,
            trials=self.trials,
            data=self.data,
            package_formats=self.package_formats,
            limit=self.limit,
        )

    def cells(self, reporter: Reporter, evaluation: Evaluation = PORTABLE) -> list[Cell]:
        """Its cells, the data fingerprinted with a progress bar. Raises BenchError of one line."""
        chosen = self.load()
        for line in left_out(chosen, self.own or []):
            reporter.say(line)

        def fingerprint(opened: DataSet) -> None:
            trains = chosen.training is not None or any(config.needs_data for config in chosen.configs)
            splits = [split for split in (opened.train if trains else None, opened.val) if split]
            with reporter.steps(f"reading {opened.spec}", len(splits)) as steps:
                for split in splits:
                    split.compute_fingerprint(steps.within(split.name))
                    steps.advance()

        return lay_out(chosen, self.weights, fingerprint, evaluation, say=reporter.say)

    def take_part(self, team: "Team", device: str) -> None:
        """What torchrun's other processes do: train what the first one trains."""
        # Here, because it imports torch.
        from coreml_prune_bench.bench.build.followers import take_part

        take_part(team, lambda: [cell.subject for cell in lay_out(self.load(), self.weights)], device)


@extras_named()
def run_suite(
    suite: str | Path | Suite,
    *,
    data: str | list[str] | None = None,
    weights: str | Path | None = None,
    models: str | list[str] | None = None,
    networks: str | list[str] | None = None,
    algorithms: str | list[str] | None = None,
    trials: int | None = None,
    package_formats: str | list[str] | None = None,
    limit: int | None = None,
    results: str | Path = "results/local",
    device: str = "auto",
) -> Results:
    """Build and evaluate every cell of a suite that is not measured yet; the records of all of them.

    suite: a shipped one's name, the path of a .toml file, or a Suite. networks: specs of your own ("net.py:build"), as
    `--model`; package_formats: "mlpackage", "aimodel"; the rest as the options of `run`. A string is a list of one, and
    a cell that fails a record with its reason.
    Raises BenchError of one line for what the user can mend.
    """
    choice = SuiteChoice(
        suite if isinstance(suite, Suite) else str(suite),
        _listed(data),
        Path(weights) if weights else None,
        _listed(models),
        _listed(networks),
        _listed(algorithms),
        trials,
        _listed(package_formats),
        limit,
    )
    reporter = Reporter()
    training = TrainingOptions(device, say=reporter.say)
    store = Store(Path(results))
    outcome = run(choice.cells(reporter), RunOptions(store, reporter, training=training))
    for line in chance_levels(outcome.records):
        reporter.warn(line)
    return Results(tuple(outcome.records))


def _listed(value: str | list[str] | None) -> list[str] | None:
    return [value] if isinstance(value, str) else value
