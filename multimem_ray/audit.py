"""The stages of an audit, from the configuration to the files of the run.

    audit = train ──► score ──► report        mitigate = audit ──► evaluate ──► compare

Every stage does what is missing and nothing else, so running it again resumes it. An executor does
the work: ``"ray"`` on a cluster or on the cores of this machine, ``"local"`` in this process. What
one began the other may finish. Ray is started when there is something for it to do.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal

from multimem_ray.config import Config
from multimem_ray.distributed.choice import make_executor
from multimem_ray.distributed.executor import Executor, ExecutorName, total
from multimem_ray.errors import ConfigError, StorageError
from multimem_ray.planning.timings import OTHER, compare, record, recorded
from multimem_ray.progress import Progress
from multimem_ray.run import Run, Shards
from multimem_ray.setup import open_run, require_shards, with_models
from multimem_ray.setup.shared_disk import require_shared
from multimem_ray.storage import Storage

if TYPE_CHECKING:
    from multimem_ray.planning.plan import Plan
    from multimem_ray.results.table import ScoreTable

_MOST_NAMED = 5


def audit(
    config: Config,
    progress: Progress | None = None,
    *,
    executor: ExecutorName | Executor = "ray",
    retry_errors: bool = False,
) -> dict[str, Any]:
    """Train the reference models, score every sample, write summary and report.

    Args:
        progress: What is told meanwhile; default: on standard error.
        executor: Who does the work: ``"ray"``, or ``"local"`` in this process.
        retry_errors: Also score again what failed before.

    Returns:
        The summary; see :func:`multimem_ray.results.summary.summarize`.

    Raises:
        MultiMemError: See the stages; what was done stays done.
    """
    started = time.monotonic()
    stages = _Stages(config, progress, executor)
    with stages.session:
        spent = 0.0 if stages.run.is_stored else stages.train(scored_next=True)
        spent += stages.score(retry_errors)
        while stages.grow():
            spent += stages.train(scored_next=True) + stages.score(retry_errors)
        if spent:
            stages.record(OTHER, started + spent, 1)
        if config.design.proxy is not None:
            _blend(stages)
    stages.run.fence.require()
    return report(config, stages.progress, again=False)


def _blend(stages: _Stages) -> None:
    """Audit by the cheaper model of ``design.proxy``, and keep what both say together."""
    from multimem_ray.results.blend import write_blend
    from multimem_ray.results.table import ScoreTable
    from multimem_ray.setup.proxy import proxy_config
    from multimem_ray.verdict.blend import LEAST

    config, run, progress = proxy_config(stages.run), stages.run, stages.progress
    full, proxies = (ScoreTable(output, run.storage) for output in (run.output, config.output))
    scored = sum(commit.rows for commit in full.commits)
    if scored < LEAST:
        progress.say(
            f"proxies: none are trained, since {scored} scored samples are too few to tell what "
            f"they are worth; it takes {LEAST}"
        )
        return
    progress.say(f"proxies: {config.design.models} cheaper models, in {config.output}")
    audit(config, progress, executor=stages.executor)
    known = full.blend
    if known is None or known["proxies"] != {"output": config.output, **proxies.version}:
        write_blend(full, proxies, [recorded(run), recorded(open_run(config, writes=False)[0])])


def train(
    config: Config,
    progress: Progress | None = None,
    *,
    executor: ExecutorName | Executor = "ray",
) -> list[str]:
    """Train the reference models that are not trained yet; see :func:`audit` for the arguments.

    Returns:
        The ids of all models, trained now or before.

    Raises:
        ConfigError: The run is one on stored embeddings.
        HeldOutError: The held-out set cannot serve.
        TrainingError: A bank failed; names its models and the cause. What was finished stays.
    """
    require_shards(config.data, "train")
    stages = _Stages(config, progress, executor)
    with stages.session:
        stages.train()
    if stages.run.config.design.grows:
        stages.progress.say("design.models: auto: `multimem audit` scores, and adds models then")
    return list(stages.run.design.model_ids())


def score(
    config: Config,
    progress: Progress | None = None,
    *,
    executor: ExecutorName | Executor = "ray",
    retry_errors: bool = False,
) -> dict[str, Any]:
    """Score what is not scored yet, and with ``retry_errors`` what failed before.

    Returns:
        The summary; see :func:`multimem_ray.results.summary.summarize`.

    Raises:
        ModelError: A reference model is not trained yet.
        HeldOutError: The held-out set cannot serve.
    """
    stages = _Stages(config, progress, executor)
    with stages.session:
        stages.score(retry_errors)
    return write_summary(config, stages.progress)


def embed(
    config: Config,
    progress: Progress | None = None,
    *,
    executor: ExecutorName | Executor = "ray",
    retry_errors: bool = False,
) -> str:
    """Write the embeddings of every sample under every model; the models must be there.

    Returns:
        URL of the folder.

    Raises:
        ConfigError: The run is one on stored embeddings.
        ModelError: A reference model is not trained yet.
    """
    from multimem_ray.embeddings.embed import embed as embed_shards

    require_shards(config.data, "embed")
    stages = _Stages(config, progress, executor)
    with stages.session:
        stages.begin()
        started = time.monotonic()
        totals = embed_shards(
            stages.run, stages.shards, stages.progress, stages.executor, retry_errors=retry_errors
        )
        stages.record("embed", started, totals.fresh)
    stages.progress.say(
        f"{totals.shards} shards: {totals.rows} samples embedded, {totals.errors} in errors/"
    )
    return stages.run.path("embeddings")


def report(
    config: Config, progress: Progress | None = None, *, again: bool = True
) -> dict[str, Any]:
    """Write ``summary.json`` and ``report.html`` from what is scored so far.

    Args:
        again: Write the report even if it is there and was made from the same.

    Returns:
        The summary; see :func:`multimem_ray.results.summary.summarize`.
    """
    progress, storage = progress or Progress(), Storage(config.storage)
    summary = write_summary(config, progress)
    place = storage.join(config.output, "report.html")
    digest = _report_digest(config, summary)
    if not again and summary.get("report") == digest and storage.exists(place):
        progress.say(f"report: {place}, as before")
        return summary
    from multimem_ray.report import write_report

    progress.say("writing the report")
    url = write_report(
        config.output,
        storage,
        summary=summary,
        top=config.report.top,
        title=config.report.title,
        planted=config.data.planted,
        by=config.report.domains,
    )
    _write_summary_file(config, summary | {"report": digest})
    progress.say(f"report: {url}")
    return summary


def _report_digest(config: Config, summary: dict[str, Any]) -> str:
    """Of what a report shows besides the samples themselves."""
    from multimem_ray.results.catalogue import Catalogue
    from multimem_ray.results.table import ScoreTable

    table = ScoreTable(config.output, Storage(config.storage))
    shown = [
        *(table.document(f"{name}.json") for name in ("evaluation", "mitigation")),
        {name: value for name, value in summary.items() if name != "report"},
        config.report.model_dump(mode="json"),
        Catalogue(config.output, Storage(config.storage)).state,
    ]
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:32]


def plan(
    config: Config, progress: Progress | None = None, *, probing: bool = False, save: bool = False
) -> Plan:
    """What a run would read, train and score, and what that would take; nothing is started.

    Args:
        probing: Measure a few samples on this machine, which takes some seconds.
        save: Keep the plan in the output; the only thing that is ever written.

    Raises:
        ConfigError: There is an estimate to be saved, and nothing was measured.
        MultiMemError: What would stop the run as well.
    """
    from multimem_ray.planning.plan import make_plan

    if save and not probing:
        raise ConfigError("--save keeps an estimate, which needs --probe")
    return make_plan(config, progress or Progress(), probing=probing, save=save)


def evaluate(config: Config, progress: Progress | None = None) -> dict[str, Any]:
    """Retrieval, linear probes and zero-shot classification of every model, on held-out samples.

    Returns:
        The figures; see :func:`multimem_ray.evaluation.evaluate.evaluate`, which writes them to
        ``evaluation.json``.

    Raises:
        HeldOutError: The held-out set was not chosen yet, or none of it can be used.
        ModelError: A model is missing.
    """
    from multimem_ray.evaluation.evaluate import evaluate as evaluate_run

    require_shards(config.data, "evaluate")
    progress = progress or Progress()
    run, _ = announce(config, progress, writes=False)
    return evaluate_run(run, progress)


def mitigate(
    config: Config,
    progress: Progress | None = None,
    *,
    executor: ExecutorName | Executor = "ray",
) -> dict[str, Any]:
    """Train by the mitigated recipe, score with matched references, evaluate, compare.

    Returns:
        ``memory``, ``utility`` (before and after), ``overhead`` and the ``recipe``; written to
        ``mitigation.json``, and for people to ``mitigation.html``.

    Raises:
        ConfigError: No mitigation is configured.
        MultiMemError: See the stages.
    """
    from multimem_ray.evaluation.mitigation import compared, memory_table, utility_table
    from multimem_ray.report.mitigation import write_mitigation

    if config.mitigation.kind == "none":
        raise ConfigError(
            "mitigation.kind is none: set it to in_training or post_training, and "
            "mitigation.references to the output of a finished audit"
        )
    progress = progress or Progress()
    audit(config, progress, executor=executor)
    run, _ = open_run(config, writes=False)
    result = compared(run, str(run.config.mitigation.references), progress)
    run.storage.write_atomic(run.path("mitigation.json"), json.dumps(result, indent=1).encode())
    tables = memory_table(result["memory"]), utility_table(result)
    url = write_mitigation(run, result, tables)
    report(config, progress)
    progress.say(f"side by side: {url}")
    return result


def announce(config: Config, progress: Progress, *, writes: bool = True) -> tuple[Run, Shards]:
    """Open the run and say what was found."""
    run, shards = open_run(config, writes=writes)
    size = sum(shard.size for shard in shards.scored)
    where = f", in {config.data.shards}" if config.data.shards else " of stored embeddings"
    progress.say(f"{len(shards.scored)} shards, {decimal(size)}{where}")
    for url in shards.missing[:_MOST_NAMED]:
        progress.say(f"warning: {url} is missing; listed in errors/")
    if len(shards.missing) > _MOST_NAMED:
        progress.say(f"warning: {len(shards.missing)} shards are missing in all")
    progress.say(grouping_words(run))
    fields = ", ".join(f"{name} ({run.fields[name]})" for name in run.modalities)
    progress.say(f"modalities: {fields}" + (f"; label: {run.label}" if run.label else ""))
    for warning in shards.warnings:
        progress.say(f"warning: {warning}")
    return run, shards


def grouping_words(run: Run) -> str:
    """What is left out together."""
    group, table = run.config.design.group, run.group_table
    if group is None:
        return "groups: none (design.group: key); copies of a sample hide each other's memorization"
    if table is not None:
        return f"groups: {len(table.names)} of {len(table)} samples in {group}, and exact copies"
    if run.config.design.groups_by_field:
        return f"groups: samples of the same {group}"
    return "groups: exact copies (design.group: content)"


def write_summary(config: Config, progress: Progress) -> dict[str, Any]:
    """Summarize the committed scores into ``summary.json``, unless it is of these very scores."""
    from multimem_ray.results.sources import sources_digest
    from multimem_ray.results.table import ScoreTable

    storage = Storage(config.storage)
    table = ScoreTable(config.output, storage)
    digest = sources_digest(table, config.data.planted)
    written = _written_summary(table, digest)
    summary = dict(written or {})
    if written is None:
        from multimem_ray.results.summary import summarize

        with progress.task("summary", len(table.score_files), unit="files") as shown:
            summary = summarize(
                table,
                planted=config.data.planted,
                progress=lambda done, _: shown.update(done),
            )
    summary |= {"plan": compare(config.output, storage), "sources": digest}
    if json.dumps(summary) != json.dumps(written):
        _write_summary_file(config, summary)
    return summary


def _write_summary_file(config: Config, summary: dict[str, Any]) -> None:
    storage = Storage(config.storage)
    url = storage.join(config.output, "summary.json")
    storage.write_atomic(url, json.dumps(summary, indent=1).encode())


def _written_summary(table: ScoreTable, digest: str) -> dict[str, Any] | None:
    """The summary of before, if it was made from the same; a damaged one is written again."""
    try:
        written = table.document("summary.json")
    except StorageError:
        return None
    return written if written.get("sources") == digest else None


class _Stages:
    """The stages that an executor works on, of one opened run."""

    def __init__(
        self, config: Config, progress: Progress | None, executor: ExecutorName | Executor
    ) -> None:
        self.progress = progress or Progress()
        self.executor = make_executor(executor, config.resources.ray_address)
        self.run, self.shards = announce(config, self.progress)
        self.session = ExitStack()
        self._begun = False

    def begin(self) -> None:
        """Begin the executor's session, unless a stage before did."""
        if not self._begun:
            self.session.enter_context(self.executor.session())
            self._begun = True
            require_shared(self.run, self.shards, self.executor)

    def train(self, *, scored_next: bool = False) -> float:
        """Returns the seconds of the stage, 0 if nothing was left to do.

        Args:
            scored_next: There must be room for scoring, too.
        """
        run, progress = self.run, self.progress
        if all(run.is_trained(model_id) for model_id in run.design.model_ids()):
            progress.say("reference models: all trained before")
            return 0.0
        from multimem_ray.embeddings.source import source_of
        from multimem_ray.mitigation.reference_scores import prepare_references
        from multimem_ray.scoring.held_out_plan import plan_held_out
        from multimem_ray.training.trainer import train as train_models

        self.begin()
        if scored_next:
            self._require_scoring()
        # A held-out set that cannot serve must be told before hours of training, not after.
        plan_held_out(run, self.shards, progress, source_of(run), self.executor)
        prepare_references(run, progress, self.shards.scored)
        started = time.monotonic()
        trained = train_models(run, self.shards.scored, progress, self.executor)
        return self.record("train", started, len(trained))

    def _require_scoring(self) -> None:
        """What scoring asks for is there, unless a cluster may still bring it."""
        resources, executor = self.run.config.resources, self.executor
        if executor.distributed:
            from multimem_ray.distributed.session import is_private

            if not is_private(resources.ray_address):
                return
        if resources.score.gpus:
            bundle, key = {"GPU": resources.score.gpus}, "resources.score.gpus"
            executor.require(bundle, key, self.progress)
        elif executor.distributed:
            bundle, key = {"CPU": float(resources.score.cpus)}, "resources.score.cpus"
            executor.require(bundle, key, self.progress)

    def score(self, retry_errors: bool) -> float:
        """Returns the seconds of the stage, 0 if nothing was left to do."""
        from multimem_ray.embeddings.source import source_of
        from multimem_ray.scoring.pipeline import pending
        from multimem_ray.scoring.pipeline import score as score_shards

        left = pending(self.run, self.shards, retry_errors=retry_errors)
        if left.shards:
            self.begin()
        started = time.monotonic()
        run, source = self.run, source_of(self.run)
        totals = score_shards(run, self.shards, self.progress, source, self.executor, left)
        spent = self.record("score", started, totals.fresh) if left.shards else 0.0
        self.progress.say(
            f"{totals.shards} shards: {totals.rows} samples scored, {totals.held_out} held out, "
            f"{totals.errors} in errors/"
        )
        return spent

    def grow(self) -> bool:
        """Whether the run was given more models, as ``design.models: auto`` asks for."""
        design, run = self.run.config.design, self.run
        if not design.grows:
            return False
        from multimem_ray.results.growth import grow, growth_words
        from multimem_ray.results.table import ScoreTable

        table = ScoreTable(run.output, run.storage)
        decision = grow(table, design, run.design.block, recorded(run))
        if decision["next"] is None:
            return False  # why is told with the summary
        for sentence in growth_words(decision):
            self.progress.say(sentence)
        self.run = with_models(run, self.shards, decision["next"])
        return True

    def record(self, stage: str, started: float, done: int) -> float:
        """Keep how long a stage took; returns its seconds."""
        seconds, nodes = time.monotonic() - started, self.executor.nodes()
        record(self.run, stage, seconds, done, max(1, total(nodes, "CPU")), total(nodes, "GPU"))
        return seconds
