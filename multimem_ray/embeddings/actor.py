"""A run's shards under all of its models, as Parquet that can be kept and scored later.

The actors, the reading, the views and the commits are those of scoring: what differs is what a
chunk of samples becomes, and where that goes (:mod:`multimem_ray.embeddings.log`). Held-out samples
are embedded, too; whoever scores the embeddings needs them.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from multimem_ray.embeddings import layout
from multimem_ray.embeddings.log import EmbeddingLog, wide_column
from multimem_ray.run import Run
from multimem_ray.scoring.actor import ShardScorer
from multimem_ray.scoring.bank import ScoringBank, require_directions
from multimem_ray.scoring.chunks import ChunkReader
from multimem_ray.scoring.shard import ScoringBatch, TableOutput


class Embeddings(TableOutput):
    """What every model made of the samples, in one wide table: identity, then a column
    ``<model>/<modality>`` for each of both.

    Models with fewer dimensions than others are padded with zeros.
    """

    def __init__(self, run: Run, bank: ScoringBank) -> None:
        vector = pa.list_(pa.float32(), run.config.scoring.views * bank.dim)
        self._models, self._modalities = run.design.model_ids(), run.modalities
        wide = [(wide_column(m, n), vector) for m in self._models for n in self._modalities]
        reader = ChunkReader(run, keep_held_out=True)
        super().__init__(reader, pa.schema([*layout.IDENTITY.items(), *wide]))
        self._bank, self._rule = bank, run.held_out_rule
        self._grouped = run.config.design.group is not None

    def rows(self, batch: ScoringBatch) -> pa.Table:
        who, present = batch.who, batch.decoded.present(self._modalities)
        size = len(who.keys)
        columns: dict[str, Any] = {
            layout.KEY: who.keys,
            layout.SHARD: [batch.shard] * size,
            layout.INDEX: who.indices,
            layout.LABEL: who.labels,
            layout.GROUP: who.groups if self._grouped else [None] * size,
            layout.HELD_OUT: self._rule.is_held_out(who.groups, batch.shard),
        }
        # (M, V, B, n, d) → (M, n, B, V, d)
        vectors = self._bank.embed(batch.decoded).cpu()
        require_directions(vectors, present)
        embedded = vectors.permute(0, 3, 2, 1, 4).contiguous().flatten(3)
        for model, of_model in zip(self._models, embedded, strict=True):
            for place, name in enumerate(self._modalities):
                absent = pa.array(~present[:, place].numpy())
                values = pa.array(of_model[place].reshape(-1).numpy())
                width = of_model.shape[-1]
                column = pa.FixedSizeListArray.from_arrays(values, width, mask=absent)
                columns[wide_column(model, name)] = column
        schema = self.schema
        return pa.table([pa.array(columns[n], schema.field(n).type) for n in schema.names], schema)


class ShardEmbedder(ShardScorer):
    """The actor: embeds shards and commits them."""

    def __init__(self, run: Run, restarted: bool | None = None) -> None:
        super().__init__(run, restarted, EmbeddingLog(run))

    def output(self) -> Embeddings:
        return Embeddings(self.run, self.bank)
