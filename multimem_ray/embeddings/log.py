"""The files of stored embeddings: one for each shard and model, then a marker, last a manifest."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from operator import attrgetter

import pyarrow as pa
import pyarrow.parquet as pq

from multimem_ray.embeddings import layout
from multimem_ray.embeddings.layout import About, key_digest
from multimem_ray.run import Run
from multimem_ray.storage import FileInfo
from multimem_ray.store.commits import CommitLog, Written
from multimem_ray.store.markers import Commit
from multimem_ray.store.partitioning import Partitioning

_ROW_GROUP_BYTES = 16 << 20
_ROW_GROUP_ROWS = (256, 16_384)


class EmbeddingLog(CommitLog):
    """The commit log below ``<output>/embeddings``: a file per shard and model, then one marker."""

    def __init__(self, run: Run) -> None:
        # Files of one shard stand side by side: by hash, whatever the scores are partitioned by.
        by_hash = Partitioning(run.config.scoring.partitions)
        url = run.path(layout.FOLDER)
        super().__init__(run.storage, url, run.fingerprint, by_hash, run.fence)
        self._run = run

    def _write_rows(self, shard: FileInfo, rows: pa.Table) -> Written:
        keys = key_digest(c.cast(pa.large_string()) for c in rows[layout.KEY].chunks)
        files: dict[str, str] = {}
        for model in self._run.design.model_ids():
            encode = partial(_parquet, self._run, model, shard.url, keys)
            files |= self._write(self.data_url(f"model={model}", shard.url), rows, encode)
        return Written(files)

    def _stems(self) -> dict[str, Callable[[Commit], str]]:
        models = [f"model={model}" for model in self._run.design.model_ids()]
        return dict.fromkeys([*models, "errors"], attrgetter("error_stem"))


def write_membership(run: Run) -> None:
    """Say beside each model's files what it trained on, as beside its weights."""
    if run.design.checkpoints():
        return
    for number, model in enumerate(run.design.model_ids()):
        content = {
            "model": model,
            "number": number,
            "design": run.design.describe(),
            "held_out": run.config.held_out.model_dump(mode="json"),
            "group": run.config.design.group,
            "fields": dict(run.fields),
        }
        url = run.path(layout.FOLDER, f"model={model}", "membership.json")
        run.storage.write_atomic(url, json.dumps(content, indent=1).encode())


def write_manifest(run: Run, shards: int) -> str:
    """Say what was embedded; the last file. Returns its URL."""
    config = run.config
    content = {
        "fingerprint": run.fingerprint,
        "models": run.design.model_ids(),
        "modalities": list(run.modalities),
        "views": config.scoring.views,
        "view_seed": config.scoring.seed,
        "label": run.label,
        "design": config.design.model_dump(mode="json"),
        "held_out": config.held_out.model_dump(mode="json"),
        "pool_below": run.pool_below,
        "shards": shards,
    }
    url = run.path(layout.FOLDER, layout.MANIFEST)
    run.storage.write_atomic(url, json.dumps(content, indent=1).encode())
    return url


def wide_column(model: str, modality: str) -> str:
    """Name of a column in the table of all models."""
    return f"{model}/{modality}"


def _parquet(
    run: Run, model: str, shard: str, keys: str, rows: pa.Table, fingerprint: str
) -> bytes:
    config, names = run.config, list(run.modalities)
    views = config.scoring.views
    dim = rows.schema.field(wide_column(model, names[0])).type.list_size // views
    about = About(model, views, dim, names, shard, keys, fingerprint)
    table = rows.select([*layout.IDENTITY, *(wide_column(model, name) for name in names)])
    table = table.rename_columns([*layout.IDENTITY, *names])
    row_bytes = 4 * about.views * about.dim * len(names)
    least, most = _ROW_GROUP_ROWS
    buffer = io.BytesIO()
    # Bits of normalised vectors are noise: packing them costs reading time and saves nothing.
    pq.write_table(
        table.replace_schema_metadata(about.metadata()),
        buffer,
        compression="none",
        use_dictionary=[layout.SHARD, layout.LABEL, layout.GROUP],
        row_group_size=min(most, max(least, _ROW_GROUP_BYTES // row_bytes)),
    )
    return buffer.getvalue()
