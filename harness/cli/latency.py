"""`latency`: how long a prediction takes, on this Mac, on a device, or in the portable runtime."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from coreml_prune_bench.cli.cluster_options import CERTIFICATES, CertificatesOption, ClusterOption
from coreml_prune_bench.cli.options import (
    RESULTS,
    FormatOption,
    JsonOption,
    ResultsOption,
    compute_units_of,
    exit_with_failures,
    finite,
    split_commas,
)
from coreml_prune_bench.cli.output import show, terminal_width
from coreml_prune_bench.core.cache_folder import cache_folder, use
from coreml_prune_bench.core.errors import BenchError, did_you_mean
from coreml_prune_bench.core.progress import Reporter
from coreml_prune_bench.runtimes.protocol import RuntimeName

if TYPE_CHECKING:
    from coreml_prune_bench.records.latency import Besides, Protocol

_MAC = "mac"
_ROUNDS, _PREDICTIONS, _SECONDS = 6, 50, 2.0
_DEVICE_ROUNDS, _DEVICE_PREDICTIONS, _DEVICE_WARM_UP = 4, 10, 3
"""On a device each prediction takes seconds."""


def latency(
    packages: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PACKAGE]...", help=".mlpackage folders that hold ML programs, or .aimodel folders."),
    ] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", help="The packages of a suite, as `run` left them in the results folder.")
    ] = None,
    compute_units: Annotated[
        list[str] | None,
        typer.Option(
            "--compute-units",
            help="Of all, cpu_and_ne, cpu_and_gpu and cpu_only; several with commas.  [all,cpu_and_ne; cpu_only where "
            "Core AI has nothing else]",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="`mac`, or the name of an iPhone or iPad that is connected to it.")
    ] = _MAC,
    runtime: Annotated[
        RuntimeName,
        typer.Option(
            "--runtime",
            help="What predicts: coreml; coreai, of a .aimodel; or portable, which says nothing of Apple's hardware.",
        ),
    ] = "coreml",
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", min=1, help=f"Visits to each row.  [{_ROUNDS}; {_DEVICE_ROUNDS} on a device]"),
    ] = None,
    predictions: Annotated[
        int | None,
        typer.Option(
            "--predictions", min=1, help=f"The least in a visit.  [{_PREDICTIONS}; {_DEVICE_PREDICTIONS} on a device]"
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", min=0, help=f"The least in a visit.  [{_SECONDS:g}; 0 on a device]", callback=finite),
    ] = None,
    batch_size: Annotated[
        list[str] | None, typer.Option("--batch-size", help="Samples a prediction; several with commas.  [1]")
    ] = None,
    concurrency: Annotated[
        int,
        typer.Option(
            "--concurrency",
            min=1,
            help="Predictions at a time, each in a process of its own: coremltools makes one a process.",
        ),
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Of the order of visits.")] = 0,
    time_limit: Annotated[
        float,
        typer.Option(
            "--time-limit",
            min=1,
            help="Seconds for one compilation, load or prediction, after which it has hung.",
            callback=finite,
        ),
    ] = 900,
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also",
            help="Of cold, wake, energy and memory; several with commas, or all: loads that find nothing in the "
            "system's cache, first predictions after 0, 1, 5 and 30 s of idling, mJ a prediction, the most memory.",
        ),
    ] = None,
    qos: Annotated[
        str | None,
        typer.Option(
            "--qos",
            help="The class of service that predictions run in: user-interactive, user-initiated, default, utility or "
            "background.  [as the system starts a process]",
        ),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure rows again that have a record.")] = False,
    per_op: Annotated[bool, typer.Option("--per-op", help="Also each operation, as the compute plan has it.")] = False,
    compare: Annotated[
        Literal["published"] | None,
        typer.Option("--compare", help="The published medians beside ours, with the device that they are from."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only print the protocol, the number of predictions and the estimated time."),
    ] = False,
    benchmark_json: Annotated[
        Path | None, typer.Option("--benchmark-json", metavar="FILE", help="Also write pytest-benchmark's format.")
    ] = None,
    development_team: Annotated[
        str | None, typer.Option("--development-team", help="For a device: the team that signs the app on it.")
    ] = None,
    provisioning_profile: Annotated[
        str | None, typer.Option("--provisioning-profile", help="For a device: a profile's UUID, instead of a team.")
    ] = None,
    bundle_identifier: Annotated[
        str | None, typer.Option("--bundle-identifier", help="For a device: the app's, as the profile has it.")
    ] = None,
    cluster: ClusterOption = None,
    certificates: CertificatesOption = CERTIFICATES,
    results: ResultsOption = RESULTS,
    format: FormatOption = "md",
    as_json: JsonOption = False,
) -> None:
    """How long a prediction takes, where the compute plan puts it, and how much faster a sparse package is.

    For example: `latency --suite imagenet --compare published`, `latency m.mlpackage --compute-units all,cpu_only`

    `latency m.mlpackage --also wake,energy`

    Each row (a package on one choice of compute units) is warmed up until it is steady and then visited in rounds, all
    rows in turn. Every sample is kept in a record, RESULTS/latency/*.json. A row with a record of the same protocol,
    device and runtime is not measured again, and a stopped run goes on where it was. A row that fails, hangs or ends
    its process is recorded as failed with the reason; the others are measured.
    """
    from coreml_prune_bench.core.escaping import markdown_line
    from coreml_prune_bench.core.files import refuse_file, refuse_folder, write_atomically
    from coreml_prune_bench.latency.awake import kept_awake
    from coreml_prune_bench.latency.iphone import Credentials
    from coreml_prune_bench.latency.machines import mobile_device, this_machine
    from coreml_prune_bench.latency.session import Session
    from coreml_prune_bench.latency.targets import Target, package_at, packages_of_suite
    from coreml_prune_bench.latency.worker import Workers
    from coreml_prune_bench.report.does_it_pay import does_it_pay
    from coreml_prune_bench.report.latency_tables import render, render_operations

    format = "json" if as_json else format
    refuse_folder(results / "latency", f"--results {results}")
    if runtime == "coreai" and split_commas(batch_size):
        raise BenchError("--runtime coreai: one sample a call; leave out --batch-size")
    if benchmark_json is not None:
        refuse_file(benchmark_json, f"--benchmark-json {benchmark_json}", replace=True)
    on_device = device != _MAC
    units = _compute_units(compute_units, runtime, on_device=on_device)
    batches = [_positive("--batch-size", text) for text in split_commas(batch_size) or ["1"]]
    besides = _besides(also)
    if besides and concurrency > 1:
        raise BenchError("--also: of one prediction at a time; leave out --concurrency")
    if on_device and (besides or qos):
        raise BenchError("--device: neither --also nor --qos; the app on the device has no such things")
    if on_device and (batches != [1] or concurrency > 1):
        raise BenchError("--device: one sample at a time only; leave out --batch-size and --concurrency")
    if bool(packages) == bool(suite):
        raise BenchError("give packages or --suite, one of both")
    protocol = _protocol(
        rounds=rounds or (_DEVICE_ROUNDS if on_device else _ROUNDS),
        predictions=predictions or (_DEVICE_PREDICTIONS if on_device else _PREDICTIONS),
        seconds=(0.0 if on_device else _SECONDS) if seconds is None else seconds,
        batch_size=max(batches),
        concurrency=concurrency,
        warm_up_calls=_DEVICE_WARM_UP if on_device else None,
        array_inputs=on_device,
        qos=qos,
    ).model_copy(update={"batch_size": 1})
    if dry_run:
        count, words = _counted(packages, suite)
        rows = len(units) * len(batches) * count
        told = f"{rows}: {words}, compute units {', '.join(units)}, batch size {', '.join(map(str, batches))}"
        show(_described(rows, told, protocol, seed, units, results, besides, on_device=on_device))
        return
    given = [(path, package_at(path, runtime)) for path in packages or ()]
    if cluster is not None and (on_device or runtime != "coreml"):
        raise BenchError("--cluster measures Core ML on its Macs: leave out --device and --runtime")
    if on_device:
        credentials = Credentials(development_team, provisioning_profile, bundle_identifier)
        machine, open_runtime = mobile_device(device, credentials)
    elif cluster is None:
        machine, open_runtime = this_machine(runtime)
    found = given
    if suite:
        name, cells = _of_suite(suite)
        found = packages_of_suite(results, name, runtime, cells)
    targets = [Target(path, package, unit, batch) for path, package in found for unit in units for batch in batches]
    _in_use = [use(path) for path, _ in found if cache_folder() in path.parents]  # until this function ends
    reporter = Reporter()
    if cluster is not None:
        from coreml_prune_bench.cluster.connect import Where
        from coreml_prune_bench.cluster.latency import Asks, measure_on_macs

        asks = Asks(tuple(targets), protocol, seed, again, tuple(besides), time_limit, concurrency)
        outcome = measure_on_macs(Where(cluster, certificates), asks, results, reporter)
    else:
        session = Session(machine, protocol, results, seed=seed, again=again, besides=besides)
        with (
            kept_awake(),
            reporter.steps("latency", len(session.todo(targets)) * (1 + protocol.rounds + bool(besides))) as steps,
            Workers(open_runtime, limit_s=time_limit, count=concurrency) as workers,
        ):
            outcome = session.run(targets, workers, steps)
    reporter.say(f"{outcome.measured} of {len(outcome.records)} rows measured now; records in {results / 'latency'}")
    width = terminal_width() if format == "md" else None
    show(render(outcome.records, format, published=compare == "published", width=width))
    for line in does_it_pay(outcome.records) if format == "md" else ():
        show(f"\n{line if width else markdown_line(line)}")
    for record in outcome.records if per_op else ():
        show(f"\n{render_operations(record, format, width=width)}")
    if benchmark_json is not None and len(outcome.failed) < len(outcome.records):
        from coreml_prune_bench.report.benchmark_json import to_benchmark_json

        write_atomically(benchmark_json, json.dumps(to_benchmark_json(outcome.records), indent=1))
    if outcome.failed:
        exit_with_failures([f"{r.package.name}, {r.runtime.compute_units}: {r.reason}" for r in outcome.failed])


def _besides(given: list[str] | None) -> "list[Besides]":
    from coreml_prune_bench.records.latency import Besides

    known: tuple[Besides, ...] = get_args(Besides)
    named = split_commas(given) or []
    for name in named:
        if name not in (*known, "all"):
            raise BenchError(f"--also {name!r}: expected one of {', '.join(known)}, all{did_you_mean(name, known)}")
    return [kind for kind in known if kind in named or "all" in named]


def _compute_units(given: list[str] | None, runtime: RuntimeName, *, on_device: bool) -> list[str]:
    if runtime == "portable":
        if split_commas(given) or on_device:
            raise BenchError(
                "--runtime portable runs on this machine's processor: leave out --compute-units and --device"
            )
        return ["cpu"]
    if runtime == "coreai":
        from coreml_prune_bench.runtimes.coreai import all_units_here

        if on_device:
            raise BenchError("--runtime coreai runs on this machine: leave out --device")
        return all_units_here(compute_units_of(given, []), ("all", "cpu_and_ne"))
    return compute_units_of(given, ("all", "cpu_and_ne"))


def _protocol(**given: Any) -> "Protocol":
    """Raises BenchError for a number that no record can hold."""
    from pydantic import ValidationError

    from coreml_prune_bench.records.latency import Protocol

    try:
        return Protocol(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise BenchError(f"--{name} {first['input']}: {first['msg'][0].lower()}{first['msg'][1:]}") from error


def _positive(option: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise BenchError(f"{option} {text!r}: expected a number from 1 on")
    return int(text)


def _of_suite(suite: str) -> tuple[str, set[tuple[str, str, str]]]:
    """Its name, and its cells as its file has them; none where it is not here, and the records have to do."""
    from coreml_prune_bench.bench.suite import load_suite, shipped_suites

    if not suite.endswith(".toml") and suite not in shipped_suites():
        return suite, set()
    known = load_suite(suite)
    dense = {(model, "dense", "Float16") for model in known.models}
    pruned = {(m, config.algorithm, config.name) for config in known.configs for m in known.models if config.is_for(m)}
    return known.name, dense | pruned


def _counted(packages: list[Path] | None, suite: str | None) -> tuple[int, str]:
    """How many packages there will be, from the suite's file: they need not be built yet."""
    if packages:
        return len(packages), f"{len(packages)} package{'s' if len(packages) > 1 else ''}"
    from coreml_prune_bench.bench.suite import load_suite
    from coreml_prune_bench.published.table import read_table

    found = load_suite(suite or "")
    if found.packages == "published":
        count = len(read_table())
        return count, f"the {count} published packages"
    networks, configs = len(found.models), len(found.configs)
    count = networks * (1 + configs)
    return count, f"{count} packages of suite {found.name} ({networks} networks, dense and in {configs} configs)"


def _described(
    rows: int,
    told: str,
    protocol: "Protocol",
    seed: int,
    units: list[str],
    results: Path,
    besides: "list[Besides]",
    *,
    on_device: bool,
) -> str:
    from coreml_prune_bench.latency.plan import describe, estimate
    from coreml_prune_bench.records.latency import read_latency_records

    earlier = [r for r in read_latency_records(results) if r.rounds and r.runtime.compute_units in units]
    plan = estimate(rows, protocol, on_device=on_device, earlier=earlier, besides=besides)
    return describe(plan, protocol, told, seed=seed, known_times=bool(earlier), besides=besides)
