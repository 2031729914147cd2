"""The command ``multimem``."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

import multimem_ray as mm
from multimem_ray.commands import lookup as lookup_commands
from multimem_ray.commands.certificate import certificate as certificate_command
from multimem_ray.commands.common import AsJson, Endpoint, RunFolder, storage_at, tell
from multimem_ray.commands.common import console as _out
from multimem_ray.commands.common import existing as _existing
from multimem_ray.commands.common import progress as _progress
from multimem_ray.commands.common import say as _say
from multimem_ray.commands.diff import diff as diff_command
from multimem_ray.commands.domains import domains as domains_command
from multimem_ray.commands.export import export as export_command
from multimem_ray.config import Config
from multimem_ray.distributed.executor import ExecutorName
from multimem_ray.errors import ConfigError, MultiMemError
from multimem_ray.foreign_text import LineFormatter, line
from multimem_ray.interrupts import handle_signals
from multimem_ray.interrupts import status as stop_status

app = typer.Typer(
    name="multimem",
    help="Find the samples a multi-modal model memorized.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Show and explain configurations.", no_args_is_help=True)
app.add_typer(config_app, name="config")

_OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE}

ConfigFile = Annotated[
    str | None, typer.Argument(metavar="CONFIG", help="YAML file, on a disk or in S3")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="override, such as training.epochs=3"),
]
Local = Annotated[bool, typer.Option("--local", help="do everything in this process, without Ray")]
RetryErrors = Annotated[
    bool, typer.Option("--retry-errors", help="also try again the samples that are in errors/")
]


def main() -> None:
    """Run the command line; errors become one message and exit status 1 or 2."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whose encoding may know no dash
            stream.reconfigure(errors="backslashreplace")
    handle_signals()
    try:
        try:
            app()
        except BaseException:
            if (status := stop_status()) is not None:
                _end(status)  # whatever else failed on the way out
            raise
        finally:
            sys.stdout.flush()
    except MultiMemError as error:
        _fail(f"error: {error}", 2 if isinstance(error, ConfigError) else 1)
    except KeyboardInterrupt:
        _end(130)
    except BrokenPipeError:
        _drop_output()
        sys.exit(1)  # whoever read the output has seen enough
    except Exception as error:  # noqa: BLE001 - it is told, and kept whole in a file
        if isinstance(error, OSError):
            _drop_output()
        _fail(_of_another_kind(error), 1)


def _drop_output() -> None:
    """Send what is left of standard output nowhere: the interpreter would fail on it once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _end(status: int) -> NoReturn:
    """Leave at once: the interpreter would wait for threads that wait for what is gone."""
    _tell("stopped; the same command goes on from here")
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _fail(message: str, status: int) -> NoReturn:
    _tell(message)
    sys.exit(status)


def _tell(message: str) -> None:
    console = Console(stderr=True)
    console.print(line(message), markup=False, emoji=False, highlight=False, soft_wrap=True)


def _of_another_kind(error: Exception) -> str:
    """One line about an error that none of ours describes; its traceback goes to a file."""
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        return f"error: {error.filename or 'output'}: {os.strerror(error.errno or 0)}"
    descriptor, path = tempfile.mkstemp(prefix="multimem-", suffix=".log")
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as log:
        traceback.print_exception(error, file=log)
    cause = (str(error) or type(error).__name__).strip().partition("\n")[0]
    return (
        f"error: {type(error).__name__}: {line(cause, 300)}; this is a defect of multimem_ray "
        f"or of what it runs on; please report it with {path}"
    )


def _say_version(asked: bool) -> None:
    if asked:
        _say(f"multimem {mm.__version__}")
        raise typer.Exit


@app.callback()
def _command(
    version: Annotated[
        bool,
        typer.Option("--version", help="print the version", callback=_say_version, is_eager=True),
    ] = False,
) -> None:
    del version


@app.command()
def audit(
    config: ConfigFile = None,
    set_: Overrides = None,
    retry_errors: RetryErrors = False,
    local: Local = False,
) -> None:
    """Train reference models, score every sample, write the report. Again = resume."""
    resolved = mm.load_config(config, set_)
    summary = mm.audit(resolved, executor=_executor(local), retry_errors=retry_errors)
    _show_summary(summary, resolved.output)


@app.command()
def train(config: ConfigFile = None, set_: Overrides = None, local: Local = False) -> None:
    """Train the reference models that are not trained yet."""
    mm.train(mm.load_config(config, set_), executor=_executor(local))


@app.command()
def score(
    config: ConfigFile = None,
    set_: Overrides = None,
    retry_errors: RetryErrors = False,
    local: Local = False,
) -> None:
    """Score the shards that are not scored yet."""
    resolved = mm.load_config(config, set_)
    summary = mm.score(resolved, executor=_executor(local), retry_errors=retry_errors)
    _show_summary(summary, resolved.output)


@app.command()
def embed(
    config: ConfigFile = None,
    set_: Overrides = None,
    retry_errors: RetryErrors = False,
    local: Local = False,
) -> None:
    """Write the embeddings of every sample under every trained model, to be scored without them."""
    resolved = mm.load_config(config, set_)
    folder = mm.embed(resolved, executor=_executor(local), retry_errors=retry_errors)
    _say(f"embeddings: {folder}")


@app.command()
def report(config: ConfigFile = None, set_: Overrides = None) -> None:
    """Write summary.json and report.html from what is scored so far."""
    resolved = mm.load_config(config, set_)
    _show_summary(mm.report(resolved), resolved.output)


@app.command()
def evaluate(config: ConfigFile = None, set_: Overrides = None) -> None:
    """Retrieval, linear probes and zero-shot classification of every model, on held-out samples."""
    from multimem_ray.report.outcome import evaluation_rows
    from multimem_ray.results.terminal import evaluation_table

    resolved = mm.load_config(config, set_)
    result = mm.evaluate(resolved)
    _out().print(evaluation_table(result, evaluation_rows(result)))
    _say("intervals: Wilson's over samples; ± se over models")
    for sentence in result["left_out"]:
        _say(f"left out: {line(sentence)}")
    _say(f"all figures with intervals: {resolved.output.rstrip('/')}/evaluation.json")


@app.command()
def mitigate(config: ConfigFile = None, set_: Overrides = None, local: Local = False) -> None:
    """Train models that memorize less, and compare them with those of an audit. Again = resume."""
    from multimem_ray.evaluation.mitigation import memory_table, utility_table
    from multimem_ray.report.tables import for_terminal

    result = mm.mitigate(mm.load_config(config, set_), executor=_executor(local))
    for table in (memory_table(result["memory"]), utility_table(result)):
        _out().print(for_terminal(table))
        for note in table.notes:
            _say(note)
    if result["overhead"]:
        _say(f"choosing took {100 * result['overhead']['share']:.2f} % of training")


@app.command()
def plan(
    config: ConfigFile = None,
    set_: Overrides = None,
    probe: Annotated[bool, typer.Option(help="measure a few samples on this machine")] = False,
    save: Annotated[
        bool, typer.Option(help="keep plan.json in the output, to be compared after the run")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """What a run would read, train and score, and with --probe what it would take.

    Nothing is started, and nothing is written without --save.
    """
    made = mm.plan(mm.load_config(config, set_), probing=probe, save=save)
    if as_json:
        typer.echo(json.dumps(made.as_json(), indent=1))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in made.lines():
        table.add_row(name, Text(line(value)))
    _out().print(table)


@app.command()
def init(
    shards: Annotated[str, typer.Argument(help="shards: braces, globs, @file, '::', a folder")],
    to: Annotated[str, typer.Option(help="the file that is written")] = "run.yaml",
    output: Annotated[str, typer.Option(help="folder or s3:// prefix of the audit")] = "runs/first",
    force: Annotated[bool, typer.Option("--force", help="overwrite the file")] = False,
    endpoint_url: Endpoint = None,
) -> None:
    """Look into some shards and write a commented configuration for them."""
    from multimem_ray.setup.first_config import first_config

    if Path(to).exists() and not force:
        raise ConfigError(f"{to} is there already: --to another file, or --force")
    text = first_config(shards, output, endpoint_url)
    Path(to).parent.mkdir(parents=True, exist_ok=True)
    Path(to).write_text(text, encoding="utf-8")
    _say(f"{to} is written; look at it, and then: multimem plan --probe {to}")


@app.command()
def inspect(
    shards: Annotated[str, typer.Argument(help="shards: braces, globs, @file, '::', a folder")],
    samples: Annotated[
        int | None, typer.Option(min=1, help="only the first samples of each shard")
    ] = None,
    most_shards: Annotated[
        int | None, typer.Option("--shards", min=1, help="only so many shards, spread over all")
    ] = None,
    local: Local = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
    endpoint_url: Endpoint = None,
) -> None:
    """What is in some shards, before any configuration: members, modalities, what is wrong.

    All of it is read unless bounds are given; on the cluster of RAY_ADDRESS where there is one.
    """
    from multimem_ray.config import StorageConfig
    from multimem_ray.distributed.executor import LOCAL
    from multimem_ray.planning.look import look_through
    from multimem_ray.storage import Storage

    storage = Storage(StorageConfig(endpoint_url=endpoint_url))
    made = look_through(
        shards,
        storage,
        _progress(),
        samples=samples,
        shards=most_shards,
        executor=LOCAL if local else None,
    )
    if as_json:
        typer.echo(json.dumps(made.as_json(), indent=1))
        return
    for told in made.lines():
        _say(told)


@app.command()
def top(
    output: RunFolder,
    n: Annotated[int, typer.Option("-n", help="how many")] = 20,
    by: Annotated[
        str | None, typer.Option(help="score column; default: the shrunk score, if there is one")
    ] = None,
    partition: Annotated[
        str | None, typer.Option(help="only of one partition, such as source=tape-7")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per line")] = False,
    endpoint_url: Endpoint = None,
) -> None:
    """The most memorized samples of a run (or, --by cmc_out, those that fit together least)."""
    from multimem_ray.results.table import ScoreTable
    from multimem_ray.results.top import top as ranked

    run, storage = _existing(output, endpoint_url)
    scores = ScoreTable(output, storage, partition=partition)
    by = by or scores.verdict.ranks_by
    rows = ranked(scores, by, n)
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    from multimem_ray.results.terminal import top_table

    console = _out()
    console.print(top_table(rows, by, run["modalities"], console.width))


@app.command()
def select(
    output: RunFolder,
    by: Annotated[
        str | None,
        typer.Option(
            help="score column that ranks, or clipmem, or random; default: the shrunk score, if "
            "there is one"
        ),
    ] = None,
    top: Annotated[int | None, typer.Option(help="remove so many, the most suspicious")] = None,
    percent: Annotated[float | None, typer.Option(help="remove so many in a hundred")] = None,
    above: Annotated[
        float | None, typer.Option(help="remove what scores above (below, where low is suspicious)")
    ] = None,
    se_margin: Annotated[
        float, typer.Option(help="with --above: by so many standard errors of the score")
    ] = 0.0,
    random: Annotated[
        int | None, typer.Option(help="remove so many at random, to compare with")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the random draw")] = 0,
    more_than: Annotated[
        str | None,
        typer.Option(help="with --fdr: what is memorized more than this, such as 0.3 or 80%"),
    ] = None,
    fdr: Annotated[
        float | None,
        typer.Option(help="remove as many as can be listed with this share of false ones"),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="name of the selection; default from --by")
    ] = None,
    datacomp: Annotated[
        bool, typer.Option("--datacomp", help="also keep.npy and remove.npy, as DataComp has them")
    ] = False,
    endpoint_url: Endpoint = None,
) -> None:
    """Write the list of samples to remove, and of those to keep, with the reasons."""
    from multimem_ray.results.select import Wanted, select_samples
    from multimem_ray.results.table import ScoreTable

    _, storage = _existing(output, endpoint_url)
    wanted = Wanted(by, top, percent, above, se_margin, random, seed, more_than, fdr)
    made = select_samples(ScoreTable(output, storage), wanted, name, datacomp=datacomp)
    counts = made.counts
    unscored = f", {counts['without_score']} of them without the score"
    typer.echo(
        f"{counts['removed']} samples to remove, {counts['kept']} to keep"
        + (unscored if counts["without_score"] else "")
    )
    if made.null:
        _say(made.null)
    for kind in ("remove", "keep"):
        _say(f"{kind}: {storage.join(made.folder, kind)}")
    typer.echo(
        f"next: multimem reshard SHARDS --out FOLDER --remove {storage.join(made.folder, 'remove')}"
    )


@app.command()
def reshard(
    shards: Annotated[str, typer.Argument(help="shards: braces, globs, @file, '::'")],
    out: Annotated[
        str, typer.Option(help="folder or s3:// prefix for the shards that are written")
    ],
    remove: Annotated[
        str | None, typer.Option(help="list of samples to leave out: a folder of a selection")
    ] = None,
    keep: Annotated[str | None, typer.Option(help="list of samples to keep, and no others")] = None,
    endpoint_url: Endpoint = None,
) -> None:
    """Rewrite shards without some of their samples. Again = resume."""
    from multimem_ray.config import StorageConfig
    from multimem_ray.shards.reshard import reshard as rewrite
    from multimem_ray.storage import Storage

    if (remove is None) == (keep is None):
        raise ConfigError("reshard: give either --remove or --keep")
    storage, progress = Storage(StorageConfig(endpoint_url=endpoint_url)), _progress()
    listed = remove or keep or ""
    with progress.task("reshard", 1, unit="shards") as shown:
        made = rewrite(
            shards, out, listed, keep=keep is not None, storage=storage, advance=shown.resize
        )
    for told in made.lines():
        _say(told)
    if not made.agrees:
        raise MultiMemError(f"the sums of {out} do not agree; see reshard.json there")


@app.command()
def duplicates(
    source: Annotated[
        str, typer.Argument(help="output of a run; shards; or Parquet files of embeddings")
    ],
    out: Annotated[
        str | None, typer.Option(help="the table (.parquet); default: in the run's output")
    ] = None,
    by: Annotated[
        str, typer.Option(help="looks (no model), embeddings, or auto: looks of shards")
    ] = "auto",
    modality: Annotated[
        list[str] | None, typer.Option(help="compare by this one; may be repeated; default: all")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="similarity from which two samples are a pair")
    ] = None,
    max_size: Annotated[int | None, typer.Option(help="samples of the largest group")] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="of shards, modality=field, as data.fields")
    ] = None,
    key: Annotated[str, typer.Option(help="of embeddings, the column with the key")] = "key",
    model: Annotated[
        str | None, typer.Option(help="of a run's embeddings, by which model; default: the first")
    ] = None,
    work: Annotated[
        str | None, typer.Option(help="folder for the vectors meanwhile; default: temporary files")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
    endpoint_url: Endpoint = None,
) -> None:
    """Find near-duplicates, and write the table of groups that design.group takes."""
    from multimem_ray.config import StorageConfig
    from multimem_ray.duplicates.find import MOST, THRESHOLD
    from multimem_ray.storage import Storage

    made = mm.duplicates(
        source,
        out,
        _progress(),
        by=_way(by),
        modalities=modality or (),
        threshold=THRESHOLD if threshold is None else threshold,
        max_size=MOST if max_size is None else max_size,
        fields=_pairs(field or []),
        key=key,
        model=model,
        work=work,
        storage=Storage(StorageConfig(endpoint_url=endpoint_url)),
    )
    if as_json:
        typer.echo(json.dumps(made.as_json(), indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for name in ("threshold", "pairs", "groups", "largest", "samples in groups"):
        table.add_column(name, justify="right")
    for effect in made.effects:
        numbers = (effect.pairs, effect.groups, effect.largest, effect.samples)
        chosen = "→ " if effect.threshold == made.threshold else ""
        table.add_row(f"{chosen}{effect.threshold:.4g}", *(f"{n:,}" for n in numbers))
    _out().print(table)
    for told in made.lines():
        _say(told)


@app.command()
def status(
    output: RunFolder,
    follow: Annotated[
        bool, typer.Option("--follow", help="say what has changed until the run is done")
    ] = False,
    endpoint_url: Endpoint = None,
) -> None:
    """What is done and what is to do, from the files of a run alone."""
    from multimem_ray.status import follow as follow_run
    from multimem_ray.status import run_status

    run, storage = _existing(output, endpoint_url)
    if follow:
        follow_run(output, storage, _say)
    found = run_status(output, run, storage)
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in found.lines():
        table.add_row(name, Text(line(value)))
    _out().print(table)


@app.command()
def verify(
    output: RunFolder,
    deep: Annotated[
        bool, typer.Option("--deep", help="read every file and compare it with its SHA-256")
    ] = False,
    as_json: AsJson = False,
    endpoint_url: Endpoint = None,
) -> None:
    """Whether a run's files are as they were written; names each fault, and what to do.

    Nothing is written. The exit status is 1 if there are faults.
    """
    from multimem_ray.verify.verify import verify as verified

    found = verified(output, storage_at(endpoint_url), _progress(), deep=deep)
    tell(found.as_json(), *found.lines(), as_json=as_json)
    if found.faults:
        raise typer.Exit(1)


@app.command()
def errors(
    output: RunFolder,
    n: Annotated[int, typer.Option("-n", help="most rows to show")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per line")] = False,
    endpoint_url: Endpoint = None,
) -> None:
    """What could not be scored, and why."""
    from multimem_ray.results.table import ScoreTable

    _, storage = _existing(output, endpoint_url)
    shown = 0
    for batch in ScoreTable(output, storage).error_batches():
        for row in batch.to_pylist():
            if shown == n:
                more = f"… more; --json -n 1000000 for all of {output}/errors"
                typer.echo(line(more), err=True)
                return
            shown += 1
            if as_json:
                typer.echo(json.dumps(row))
            else:
                where = row["key"] or "(shard)"
                kind = f"{row['stage']}/{row['error']}"
                _say(f"{row['shard']}  {where}  {kind}: {row['detail']}")
    if not shown and not as_json:
        typer.echo("no errors")


for _command_of in (
    lookup_commands.lookup,
    lookup_commands.catalogue,
    domains_command,
    export_command,
    certificate_command,
    diff_command,
):
    app.command()(_command_of)


@app.command()
def view(
    output: RunFolder,
    port: Annotated[int, typer.Option(help="of this machine; 0: a free one")] = 0,
    data: Annotated[
        str | None, typer.Option(help="where the shards lie now, if they were moved")
    ] = None,
    selection: Annotated[
        str | None, typer.Option(help="file (.parquet) for what is picked; default: in the run")
    ] = None,
    endpoint_url: Endpoint = None,
) -> None:
    """Every sample of a run as a page on this machine: look, filter, pick what is to be removed."""
    from multimem_ray.view.serve import open_view, serve

    _, storage = _existing(output, endpoint_url)
    with open_view(output, storage, data=data, selection=selection) as opened:
        _say(f"picked samples: {opened.selection.url}")

        def ready(address: str) -> None:
            _say(f"open {address}")
            typer.echo("stop with Ctrl-C", err=True)
            sys.stdout.flush()

        serve(opened, port, ready)


@app.command()
def plant(
    shards: Annotated[str, typer.Argument(help="shards: braces, globs, @file, '::'")],
    out: Annotated[str, typer.Option(help="folder or s3:// prefix for the copy")],
    fraction: Annotated[float, typer.Option(help="share of samples to plant")] = 0.05,
    modality: Annotated[
        str | None, typer.Option(help="which modality is exchanged; default: drawn per sample")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="donors have another value of this field")
    ] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="modality=field, as data.fields; default: found")
    ] = None,
    seed: int = 0,
    endpoint_url: Endpoint = None,
) -> None:
    """Copy shards with a known fraction of misaligned samples, to test an audit on them."""
    from multimem_ray.commands.common import storage_at
    from multimem_ray.setup import detect_fields
    from multimem_ray.shards.plant import plant as plant_copy

    storage, progress = storage_at(endpoint_url), _progress()
    fields, found = detect_fields(shards, storage)
    fields = {**fields, **_pairs(field or [])}
    label = label or found
    progress.say(f"modalities: {', '.join(f'{m} ({f})' for m, f in sorted(fields.items()))}")
    progress.say(f"label: {label}" if label else "no label found: donors are any other sample")
    with progress.task("plant", 1, unit="steps") as shown:
        made = plant_copy(
            shards,
            out,
            fraction=fraction,
            fields=fields,
            modality=modality,
            label=label,
            seed=seed,
            storage=storage,
            advance=shown.resize,
        )
    for failure in made.failures:
        where = failure.key or "(shard)"
        progress.say(f"not copied: {failure.shard}  {where}  {failure.error}: {failure.detail}")
    for url in made.missing:
        progress.say(f"missing: {url}")
    exchanged = ", ".join(f"{name} {n}" for name, n in sorted(made.by_modality.items()))
    _say(f"{made.planted} of {made.samples} samples planted ({exchanged})")
    _say(f"truth: {made.truth}")
    typer.echo(
        f"next: multimem audit --set data.shards='{out}/*.tar' --set data.planted={made.truth}"
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="folder for data and results")] = Path("demo"),
    samples: Annotated[int, typer.Option(help="number of samples", min=100)] = 800,
) -> None:
    """Make a four-modality data set with planted misalignment, audit it, and say what was found."""
    from multimem_ray.demo.demo import run_demo

    run_demo(out, samples, _progress(), _out())


@config_app.command("show")
def config_show(config: ConfigFile = None, set_: Overrides = None) -> None:
    """Print the resolved configuration: every key with its value."""
    resolved = mm.load_config(config, set_)
    typer.echo(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False).rstrip())
    _say(f"# fingerprint: {resolved.fingerprint()}")


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON schema of the configuration."""
    typer.echo(json.dumps(Config.model_json_schema(), indent=2))


@config_app.command("presets")
def config_presets() -> None:
    """List the presets for model.preset."""
    from multimem_ray.models.presets import preset_description, preset_names

    for name in preset_names():
        _say(f"{name:14} {preset_description(name)}")


def _executor(local: bool) -> ExecutorName:
    return "local" if local else "ray"


def _way(by: str) -> Any:
    ways = ("auto", "embeddings", "looks")
    if by not in ways:
        raise ConfigError(f"--by {by}: write one of {', '.join(ways)}")
    return by


def _pairs(items: list[str]) -> dict[str, str]:
    for item in items:
        if "=" not in item:
            raise ConfigError(f"--field {item}: write modality=field, such as text=json.caption")
    return dict(item.split("=", 1) for item in items)


def _show_summary(summary: dict[str, Any], output: str) -> None:
    from multimem_ray.results.terminal import print_summary

    print_summary(summary, output, _out())
