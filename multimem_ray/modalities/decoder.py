"""From samples to batches: decode what is present, make seeded views, stack them.

Pure functions of the sample and the seed: whether an actor does all of it or CPU nodes decode for
GPU nodes, in whatever batches and order, the numbers are the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from multimem_ray.design.hashing import seed_of
from multimem_ray.errors import AbsentError, DecodeError, SampleError
from multimem_ray.modalities import registry
from multimem_ray.modalities.base import Array, Modality
from multimem_ray.modalities.batch import Batch
from multimem_ray.modalities.fields import Fields
from multimem_ray.modalities.streams import Streams
from multimem_ray.sample import Sample

if TYPE_CHECKING:
    import torch

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
        self._streams = Streams()
        made = {name: registry.create(name, settings[name]) for name in sorted(settings)}
        self.modalities: tuple[Modality, ...] = tuple(
            made.get(name) or registry.create(name) for name in self.fields.names
        )

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

    def views(
        self,
        key: str,
        decoded: Mapping[str, Array],
        seed: int,
        view: int,
        purpose: str = "score",
    ) -> dict[str, Array]:
        """One random view of each modality, seeded by (seed, purpose, key, view, modality).

        Args:
            key: The sample's key.
            decoded: What ``decode`` returned.
            seed: Seed of the run.
            view: Number of the view; in training, whatever counts the visits to the sample.
            purpose: Keeps the views of training and scoring independent.
        """
        return {
            modality.name: modality.view(
                decoded[modality.name],
                self._streams.seeded(seed_of(seed, purpose, key, view, modality.name)),
            )
            for modality in self.modalities
            if modality.name in decoded
        }

    def clean(self, decoded: Mapping[str, Array]) -> dict[str, Array]:
        """The view of each modality without any randomness."""
        return {m.name: m.view(decoded[m.name], None) for m in self.modalities if m.name in decoded}

    def collate(self, views: Sequence[Mapping[str, Array]]) -> Batch:
        """Stack the views of B samples; see :class:`~multimem_ray.modalities.batch.Batch`."""
        import torch

        values: dict[str, torch.Tensor] = {}
        rows: dict[str, torch.Tensor] = {}
        for modality in self.modalities:
            at = [row for row, view in enumerate(views) if modality.name in view]
            if at:
                values[modality.name] = modality.collate([views[row][modality.name] for row in at])
                rows[modality.name] = torch.tensor(at)
        return Batch(values, rows, len(views))


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
