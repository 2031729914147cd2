"""``multimem verify``: the whole folder of a run against what it says of itself.

    run.json        its fingerprint is that of the configuration in it
    commits/        each marker against its name, its files, their rows; every position once
    scores/ errors/ nothing that no marker names
    models/         complete, of this training, as long as their headers say
    held_out/       of this run's models, finite
    embeddings/     as the scores

With ``deep`` every file that a marker names is read and compared with its SHA-256. Whatever can be
told by a footer or a listing is told without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multimem_ray.embeddings.layout import FOLDER as EMBEDDINGS
from multimem_ray.errors import MultiMemError
from multimem_ray.prefetch import in_order
from multimem_ray.progress import Progress
from multimem_ray.run import Run, load_run
from multimem_ray.storage import FileInfo, Storage
from multimem_ray.store.markers import Commit, load_commits, way_out
from multimem_ray.store.names import shard_id, source_version
from multimem_ray.verify.documents import (
    check_data,
    check_documents,
    check_held_out,
    check_models,
)
from multimem_ray.verify.finding import Finding
from multimem_ray.verify.rows import CommitCheck, EmbeddingCheck

THREADS = 16


def verify(
    output: str,
    storage: Storage | None = None,
    progress: Progress | None = None,
    *,
    deep: bool = False,
) -> Finding:
    """What is wrong in the folder of a run, each fault with what to do.

    Args:
        output: Folder or ``s3://`` prefix.
        deep: Read every file and compare it with its SHA-256.
    """
    storage, progress, finding = storage or Storage(), progress or Progress(), Finding()
    url = storage.join(output, "run.json")
    try:
        content = load_run(output, storage)
        # Wherever the folder lies now, and however it is reached.
        here = {"output": output, "storage": storage.config.model_dump(mode="json")}
        run = Run.from_json({**content, "config": {**content["config"], **here}})
        fingerprint = str(content["fingerprint"])
        same = fingerprint == run.fingerprint
    except MultiMemError as error:
        finding.told(url, error)
        return finding
    except (KeyError, TypeError, AttributeError) as error:
        said = f"damaged ({type(error).__name__}: {error})"
        finding.fault(url, said, "restore it from a copy, or begin in another output folder")
        return finding
    if not same:
        finding.fault(
            url,
            f"its fingerprint {fingerprint} is not that of its configuration, {run.fingerprint}",
            "restore it from a copy, or begin in another output folder",
        )
    _check(run, content, finding, progress, deep=deep)
    return finding


def _check(
    run: Run, content: Mapping[str, Any], finding: Finding, progress: Progress, *, deep: bool
) -> None:
    storage, output, named = run.storage, run.output, int(content.get("shards") or 0)
    commits = load_commits(storage, output)
    current = [commit for commit in commits if commit.run == run.fingerprint]
    check_documents(run, finding)
    data = check_data(run, finding)
    _check_markers(run, current, data, finding)
    check_models(run, finding, needed=bool(current), deep=deep)
    planned = check_held_out(run, finding, needed=bool(current))
    scores = CommitCheck(storage, output, deep, planned, positions=not run.is_stored)
    _check_commits(scores, current, finding, progress, "verify")
    pending = max(0, named - len(current))
    if pending:
        finding.notes.append(f"{pending} of {named} shards are not scored yet")
    elif len(commits) == len(current):
        _check_strays(run, content.get("missing") or [], finding)
    folder = storage.join(output, EMBEDDINGS)
    embedded = [c for c in load_commits(storage, folder) if c.run == run.fingerprint]
    if embedded:
        check = EmbeddingCheck(storage, folder, deep, {}, command="multimem embed")
        _check_commits(check, embedded, finding, progress, "verify embeddings")


def _check_markers(
    run: Run, commits: Sequence[Commit], data: dict[str, tuple[int, str]], finding: Finding
) -> None:
    """One marker for a shard, of the shard as the run knows it."""
    sources = {source_version(FileInfo(url, *of)) for url, of in data.items()}
    seen: set[str] = set()
    for commit in commits:
        again = way_out(commit)
        if commit.shard_id in seen:
            finding.fault(commit.url, "a second marker of its shard", again)
        elif sources and commit.source not in sources:
            finding.fault(commit.url, "of another version of its shard than shards.parquet", again)
        seen.add(commit.shard_id)


def _check_commits(
    check: CommitCheck,
    commits: Sequence[Commit],
    finding: Finding,
    progress: Progress,
    name: str,
) -> None:
    with progress.task(name, len(commits), unit="shards") as shown:
        for done, found in enumerate(in_order(check, commits, THREADS), start=1):
            finding.add(found)
            shown.update(done)


def _check_strays(run: Run, missing: Sequence[str], finding: Finding) -> None:
    """Files that no marker names, which whoever reads the folder with another tool would read."""
    absent = {shard_id(url) for url in missing}  # whose only error no marker names
    for kind in ("scores", "errors"):
        for info in run.storage.list(run.path(kind)):
            stem = run.storage.name(info.url).removesuffix(".parquet")
            if info.url not in finding.vouched and not (kind == "errors" and stem in absent):
                finding.fault(info.url, "no marker names it", "remove it")
