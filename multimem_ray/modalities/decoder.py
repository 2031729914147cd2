"""From samples to batches: decode what is present, stack it, make seeded views.

Pure functions of the sample and the seed: whether an actor does all of it or CPU nodes decode for
GPU nodes, in whatever batches and order, the numbers are the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from multimem_ray.errors import AbsentError, DecodeError, SampleError
from multimem_ray.modalities import registry
from multimem_ray.modalities.base import Array, Modality
from multimem_ray.modalities.batch import Batch, DecodedBatch, Stacked
from multimem_ray.modalities.draws import Draws, seeds_of
from multimem_ray.modalities.fields import Fields
from multimem_ray.sample import Sample

if TYPE_CHECKING:
    import torch
    from torch import Tensor

VIEWS_VERSION = 2
"""Grows when views become others, and with them models and scores; part of the fingerprint.

1: one by one in Pillow and NumPy (versions up to 0.2). 2: batches, seeded by a counter.
"""

_MOST_NAMED = 8


class Decoder:
    """Decodes samples and makes their views; picklable.

    Args:
        fields: Modality to its field, as ``data.fields``.
        settings: Modality to its settings, as ``modalities``; those of a known modality that is
            not in ``fields`` are ignored.

    Raises:
        ConfigError: A modality, field or setting is unknown or wrong.
    """

    def __init__(
        self,
        fields: Mapping[str, str],
        settings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        settings = settings or {}
        self.fields = Fields(fields)
        made = {name: registry.create(name, settings[name]) for name in sorted(settings)}
        self.modalities: tuple[Modality, ...] = tuple(
            made.get(name) or registry.create(name) for name in self.fields.names
        )
        self._by_name = {modality.name: modality for modality in self.modalities}

    @property
    def names(self) -> tuple[str, ...]:
        """Configured modalities, sorted: the order of every axis over modalities."""
        return self.fields.names

    def decode(self, sample: Sample) -> dict[str, Array]:
        """Canonical arrays of the modalities that the sample has.

        Raises:
            SampleError: ``too_few_modalities`` (stage ``select``), or ``bad_json``.
            DecodeError: One of its modalities cannot be decoded: the sample as a whole cannot be
                used, since without it, it would be another sample.
        """
        found: dict[str, Array] = {}
        values = [(m, self.fields.value(sample, m.name)) for m in self.modalities]
        values = [(m, value) for m, value in values if value is not None]
        self._enough([m.name for m, _ in values], sample)
        for modality, value in values:
            with contextlib.suppress(AbsentError):
                found[modality.name] = decode_one(modality, value)
        self._enough(list(found), sample)
        return found

    def _enough(self, names: Sequence[str], sample: Sample) -> None:
        if len(names) < 2:
            has = names[0] if names else "none"
            # An ending that no sample had at the start is in no field that was found.
            there = ", ".join(f".{name}" for name in sorted(sample.members)[:_MOST_NAMED])
            raise SampleError(
                f"has {has} of {', '.join(self.names)} (its members: {there}); at least two are "
                "needed: see data.fields",
                "too_few_modalities",
                "select",
            )

    def stacked(
        self,
        keys: Sequence[str],
        decoded: Sequence[Mapping[str, Array]],
        seed: int,
        views: Sequence[int],
        purpose: str = "score",
    ) -> DecodedBatch:
        """Decoded samples side by side, with the random numbers of their views.

        Args:
            keys: The samples' keys.
            decoded: What ``decode`` returned of each.
            seed: Seed of the run.
            views: Numbers of the views; in training, whatever counts the visits to the samples.
            purpose: Keeps the views of training and scoring independent.
        """
        return self._stacked(decoded, Draws(seeds_of(seed, purpose, keys), views))

    def clean(self, decoded: Sequence[Mapping[str, Array]]) -> DecodedBatch:
        """The same without any randomness."""
        return self._stacked(decoded, None)

    def _stacked(self, decoded: Sequence[Mapping[str, Array]], draws: Draws | None) -> DecodedBatch:
        import torch

        arrays: dict[str, Stacked] = {}
        rows: dict[str, torch.Tensor] = {}
        for modality in self.modalities:
            name = modality.name
            at = [row for row, own in enumerate(decoded) if name in own]
            if not at:
                continue
            rows[name] = torch.tensor(at)
            own = [decoded[row][name] for row in at]
            if modality.makes_views_at_once():
                arrays[name] = Stacked.of(own)
            else:
                views = [
                    self._one_by_one(modality, a, row, draws)
                    for a, row in zip(own, at, strict=True)
                ]
                arrays[name] = Stacked.of(views)
        return DecodedBatch(arrays, rows, draws, len(decoded))

    def _one_by_one(self, modality: Modality, array: Array, row: int, draws: Draws | None) -> Array:
        """Views (V, *shape) of one sample, of a modality that defines ``view``."""
        if draws is None:
            return modality.view(array, None)[None]
        own = draws.of(modality.name).generators(row)
        return np.stack([modality.view(array, rng) for rng in own])

    def views_of(self, name: str, batch: DecodedBatch, part: slice = slice(None)) -> Tensor:
        """Views of a modality, (R, V, *shape), on the device of the arrays.

        Args:
            part: Which of the samples that have it.
        """
        arrays, draws = batch.arrays[name].rows(part), batch.draws
        modality = self._by_name[name]
        if not modality.makes_views_at_once():
            return arrays.values
        own = None if draws is None else draws.of(name).rows(batch.rows[name][part])
        return modality.views(arrays, own)

    def views(self, batch: DecodedBatch) -> Batch:
        """All views as one batch: V times B samples, the first view of all of them first."""
        import torch

        values: dict[str, Tensor] = {}
        rows: dict[str, Tensor] = {}
        for name, own in batch.rows.items():
            values[name] = self.views_of(name, batch).transpose(0, 1).flatten(0, 1)
            firsts = torch.arange(batch.views)[:, None] * batch.size
            rows[name] = (firsts + own).flatten().to(values[name].device)
        return Batch(values, rows, batch.views * batch.size)


def decode_one(modality: Modality, value: Any) -> Array:
    """One modality's canonical array; whatever goes wrong is a DecodeError."""
    try:
        return modality.decode(value)
    except DecodeError:
        raise
    except Exception as error:
        # Foreign bytes make libraries raise anything; none of it may stop the other samples.
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DecodeError(f"{modality.name}: cannot be decoded: {said}") from error
