"""Held-out retrieval while training: does a model learn what carries over?

The loss on members falls also by learning them by heart; recall among a few held-out samples
tells the rest. Measured about twenty times in a training, on clean samples, it changes no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from multimem_ray.errors import SampleError
from multimem_ray.metric import recall_hits
from multimem_ray.modalities.base import Array
from multimem_ray.modalities.batch import Batch
from multimem_ray.models.contrastive import ContrastiveModel
from multimem_ray.models.loss import pairs_of
from multimem_ray.run import Run
from multimem_ray.sample import Sample
from multimem_ray.storage import FileInfo
from multimem_ray.training.stream import shard_order

MOST_SHARDS, MEASUREMENTS = 8, 20
# A mean vector needs fewer samples than a recall does, and is needed in the midst of training.
MEANS_OF = 64
_CHUNK = 64


class HeldOutRetrieval:
    """A few held-out samples, decoded once.

    Args:
        run: The run; ``training.held_out_samples`` bounds the samples.
        shards: Its shards; a few are read until there are enough samples.
    """

    def __init__(self, run: Run, shards: Sequence[FileInfo]) -> None:
        self._decoder, self._epochs = run.decoder, run.config.training.trained_epochs
        some = list(_held_out(run, shards)) if run.config.training.held_out_samples else []
        self._views = self._decoder.views(self._decoder.clean(some)).samples()

    def is_due(self, epoch: int) -> bool:
        """Whether this epoch ends with a measurement; the last one always does."""
        every = max(1, self._epochs // MEASUREMENTS)
        is_last = epoch + 1 == self._epochs
        return len(self._views) > 1 and ((epoch + 1) % every == 0 or is_last)

    def measure(self, model: ContrastiveModel) -> dict[str, float]:
        """Recall at 1 of each pair of modalities, the mean of both directions.

        Returns:
            Pair, as ``audio_image``, → share in [0, 1]; pairs with fewer than two samples are
            left out.
        """
        embedded, recall = self._embed(model), {}
        for first, second in pairs_of(sorted(embedded)):
            both = sorted(embedded[first].keys() & embedded[second].keys())
            if len(both) > 1:
                a = torch.stack([embedded[first][row] for row in both])
                b = torch.stack([embedded[second][row] for row in both])
                recall[f"{first}_{second}"] = (_recall_at_1(a, b) + _recall_at_1(b, a)) / 2
        return recall

    def means(self, model: ContrastiveModel) -> Tensor:
        """(n, d) mean embeddings of a few samples, in the order of the run's modalities.

        Zero for a modality that none of them has.
        """
        names = self._decoder.names
        means = model.log_scales.new_zeros(len(names), model.dim)
        for name, vectors in self._embed(model, MEANS_OF).items():
            means[names.index(name)] = torch.stack(list(vectors.values())).mean(dim=0)
        return means

    @torch.inference_mode()
    def _embed(
        self, model: ContrastiveModel, most: int | None = None
    ) -> dict[str, dict[int, Tensor]]:
        """Modality → place of a sample → its embedding, in evaluation mode."""
        embedded: dict[str, dict[int, Tensor]] = {}
        views, training = self._views[:most], model.training
        model.eval()
        try:
            for start in range(0, len(views), _CHUNK):
                batch = Batch.of(views[start : start + _CHUNK])
                batch = batch.to(model.log_scales.device)
                for name, vectors in model.embed(model.prepare(batch.values)).items():
                    rows = (batch.rows[name] + start).tolist()
                    embedded.setdefault(name, {}).update(zip(rows, vectors, strict=True))
        finally:
            model.train(training)
        return embedded


def _held_out(run: Run, shards: Sequence[FileInfo]) -> Iterator[Mapping[str, Array]]:
    """Held-out samples, from shards drawn by the design's seed."""
    urls = sorted(run.held_out_urls) or [shard.url for shard in shards]
    order = shard_order(urls, run.config.design.seed, 0)[:MOST_SHARDS]
    left = run.config.training.held_out_samples
    for url in (urls[i] for i in order):
        for item in run.read(url):
            if not isinstance(item, Sample):
                continue
            try:
                if run.held_out_rule.is_held_out([run.group(item)], url)[0]:
                    yield run.decoder.decode(item)
                    left -= 1
            except SampleError:
                continue
            if not left:
                return


def _recall_at_1(queries: Tensor, gallery: Tensor) -> float:
    return float(recall_hits(queries, gallery, [1]).mean())
