"""Records as runs of MLflow, an experiment a suite. What is there already is not written again."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.report.publishing.runs import TrackedRun

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_KEY = "coreml-prune-bench.key"


def publish(runs: Sequence[TrackedRun], tracking_uri: str | None) -> int:
    """Write the runs to the tracking server, or what MLflow's own variables name; returns how many are new.

    Raises BenchError where it cannot be reached.
    """
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri)
    new = 0
    try:
        for run in runs:
            experiment = _experiment(client, run.experiment)
            if client.search_runs([experiment], f"tags.`{_KEY}` = '{run.key}'", max_results=1):
                continue
            milliseconds = int(datetime.fromisoformat(run.created).timestamp() * 1000)
            tags = {_KEY: run.key} | ({"mlflow.source.git.commit": run.git_commit} if run.git_commit else {})
            made = client.create_run(experiment, start_time=milliseconds, run_name=run.name)
            client.log_batch(
                made.info.run_id,
                [Metric(name, value, milliseconds, 0) for name, value in run.metrics.items()],
                [Param(name, value) for name, value in run.parameters.items()],
                [RunTag(name, text) for name, text in tags.items()],
            )
            client.set_terminated(made.info.run_id, end_time=milliseconds)
            new += 1
    except MlflowException as error:
        raise BenchError(f"MLflow: {' '.join(str(error).split())[:300]}; --tracking-uri says which server") from error
    return new


def _experiment(client: "MlflowClient", name: str) -> str:
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))
