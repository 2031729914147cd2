"""A run's shards under all of its models, as Parquet that can be kept and scored later.

The actors, the reading, the views and the commits are those of scoring: what differs is what a
chunk of samples becomes, and where that goes (:mod:`multimem_ray.embeddings.log`). Held-out samples
are embedded, too; whoever scores the embeddings needs them.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa
import torch

from multimem_ray.embeddings import layout
from multimem_ray.embeddings.log import EmbeddingLog, wide_column
from multimem_ray.run import Run
from multimem_ray.scoring.actor import ShardScorer
from multimem_ray.scoring.held_out_stats import HeldOutStatistics
from multimem_ray.scoring.output import ScoringBatch


class Embeddings:
    """What every model made of the samples, in one wide table; see :class:`Product`.

    Args:
        dim: Numbers of an embedding, the most that a model has; others are padded with zeros.
    """

    keeps_held_out: ClassVar[bool] = True

    def __init__(self, dim: int) -> None:
        self._dim = dim

    def schema(self, run: Run) -> pa.Schema:
        """Identity, and a column ``<model>/<modality>`` for each of both."""
        vector = pa.list_(pa.float32(), run.config.scoring.views * self._dim)
        wide = [(wide_column(m, n), vector) for m in run.design.model_ids() for n in run.modalities]
        return pa.schema([*layout.IDENTITY.items(), *wide])

    def rows(self, lot: ScoringBatch) -> pa.Table:
        """See :class:`Product`."""
        run, who, views = lot.run, lot.who, lot.views
        size = len(who.keys)
        columns: dict[str, Any] = {
            layout.KEY: who.keys,
            layout.SHARD: [lot.shard] * size,
            layout.INDEX: who.indices,
            layout.LABEL: who.labels,
            layout.GROUP: who.groups if run.config.design.group else [None] * size,
            layout.HELD_OUT: run.held_out_rule.is_held_out(who.groups, lot.shard),
        }
        # (M, V, B, n, d) → (M, n, B, V, d)
        embedded = lot.bank.embed(views).cpu().permute(0, 3, 2, 1, 4).contiguous().flatten(3)
        for model, of_model in zip(run.design.model_ids(), embedded, strict=True):
            for place, name in enumerate(run.modalities):
                absent = pa.array(~views.present[:, place].numpy())
                values = pa.array(of_model[place].reshape(-1).numpy())
                width = of_model.shape[-1]
                column = pa.FixedSizeListArray.from_arrays(values, width, mask=absent)
                columns[wide_column(model, name)] = column
        schema = self.schema(run)
        return pa.table([pa.array(columns[n], schema.field(n).type) for n in schema.names], schema)


class ShardEmbedder(ShardScorer):
    """The actor: embeds shards and commits them."""

    def __init__(self, run: Run, restarted: bool | None = None) -> None:
        super().__init__(run, restarted, log=EmbeddingLog(run))
        self._product = Embeddings(self._bank.dim)

    def statistics(self) -> HeldOutStatistics:
        """Nothing: embedding needs none."""
        return HeldOutStatistics(torch.zeros(0))
