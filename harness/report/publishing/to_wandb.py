"""Records as offline runs of Weights & Biases: files that `wandb sync` sends. Nothing is sent here."""

from collections.abc import Sequence
from pathlib import Path

from coreml_prune_bench.core.files import refuse_folder
from coreml_prune_bench.report.publishing.runs import TrackedRun


def publish(runs: Sequence[TrackedRun], folder: Path) -> int:
    """Write a folder a run into `folder`/wandb, a project a suite; returns how many. A run's id follows from its key,
    so that what is synced twice is one run."""
    refuse_folder(folder, str(folder))
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    for run in runs:
        settings = wandb.Settings(
            mode="offline",
            silent=True,
            console="off",
            disable_git=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            save_code=False,
        )
        with wandb.init(
            dir=str(folder),
            project=run.experiment,
            id=run.key[:16],
            name=run.name,
            config={**run.parameters, "created": run.created, "git_commit": run.git_commit},
            settings=settings,
        ) as made:
            made.summary.update(run.metrics)
    wandb.teardown()  # its process writes on after a run's end
    return len(runs)
