"""The held-out set under every model, in numbers: what is kept of its samples, and what of H.

Of each sample are kept its embeddings averaged over the views, and the cosines between its own
modalities; of H, the mean vectors that scoring compares with, and how consistent H itself is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from multimem_ray import metric
from multimem_ray.errors import HeldOutError
from multimem_ray.metric import Agreement, Calibration, CalibrationAccumulator, MeanAccumulator
from multimem_ray.own_files import HELD_OUT_AGAIN, damaged
from multimem_ray.sample import Failure
from multimem_ray.store.parts import GARBLED, Part, PartFolder
from multimem_ray.verdict.attack import Population

_COVARIANCE, _COUNT = "covariance.", "count."
_FAILURES = "killed"


@dataclass(frozen=True)
class Embedded:
    """B held-out samples under all models.

    Args:
        mean: (M, B, n, d), embeddings averaged over the views.
        alignment: (M, B, n, n).
        present: (B, n).
        assigned: (B, M), which models the rule would have trained on them; None in parts that an
            earlier version wrote.
    """

    mean: Tensor
    alignment: Tensor
    present: Tensor
    assigned: Tensor | None = None

    def __len__(self) -> int:
        return len(self.present)

    @classmethod
    def nothing(cls, models: int, modalities: int, dim: int) -> Embedded:
        """No sample."""
        return cls(
            torch.zeros(models, 0, modalities, dim),
            torch.zeros(models, 0, modalities, modalities, dtype=torch.float64),
            torch.zeros(0, modalities, dtype=torch.bool),
            torch.zeros(0, models, dtype=torch.bool),
        )

    @classmethod
    def joined(cls, rows: Sequence[Embedded]) -> Embedded:
        """The samples of one or more, in their order."""
        assigned = [one.assigned for one in rows if one.assigned is not None]
        return cls(
            torch.cat([one.mean for one in rows], dim=1),
            torch.cat([one.alignment for one in rows], dim=1),
            torch.cat([one.present for one in rows]),
            torch.cat(assigned) if len(assigned) == len(rows) else None,
        )


class EmbeddedParts(PartFolder[Embedded]):
    """Parts of held-out samples, as safetensors."""

    suffix: ClassVar[str] = ".safetensors"

    def encoded(self, part: Part[Embedded]) -> bytes:
        listed = json.dumps([asdict(one) for one in part.failures]).encode()
        failures = torch.frombuffer(bytearray(listed), dtype=torch.uint8)
        named = {n: tensor for n, tensor in vars(part.rows).items() if tensor is not None}
        named[_FAILURES] = failures
        return bytes(save({name: tensor.contiguous() for name, tensor in named.items()}))

    def decoded(self, data: bytes, first: int = 0, end: int | None = None) -> Part[Embedded]:
        """The part in a file; without an end, it covers what it tells of."""
        try:
            stored = load(data)
            listed = json.loads(stored.pop(_FAILURES).numpy().tobytes())
            # Version 0.1.0 wrote no index and no kind, and only of samples that killed.
            absent = {"index": None, "error": "killed_worker"}
            failures = [Failure(**{**absent, **one}) for one in listed]
            rows = Embedded(**stored)
            _ = len(rows)
        except (SafetensorError, ValueError, *GARBLED) as error:
            raise damaged(f"{self.url}, a part", error, HELD_OUT_AGAIN) from error
        told = first + len(rows) + len(failures)
        end = told if end is None else end
        return Part(first, end, rows, end - told, failures)


@dataclass(frozen=True)
class HeldOutStatistics:
    """What scoring needs of the held-out set.

    Args:
        means: (M, n, d) float64, mean vectors.
        levels: How consistent H is under each model; None without a target.
        population: H as the attack sees it; None where an earlier version summed it up.
    """

    means: Tensor
    levels: Calibration | None = None
    population: Population | None = None

    @classmethod
    def from_bytes(cls, data: bytes) -> HeldOutStatistics:
        """What :meth:`to_bytes` wrote.

        Raises:
            StorageError: It is damaged.
        """
        try:
            return cls._of(load(data))
        except (SafetensorError, ValueError, *GARBLED) as error:
            raise damaged("held_out/means.safetensors", error, HELD_OUT_AGAIN) from error

    @classmethod
    def _of(cls, stored: dict[str, Tensor]) -> HeldOutStatistics:
        population = Population.from_arrays({name: t.numpy() for name, t in stored.items()})
        if "alignment" not in stored:
            return cls(stored["means"], population=population)
        sets = [name.removeprefix(_COVARIANCE) for name in stored if name.startswith(_COVARIANCE)]
        levels = Calibration(
            stored["alignment"],
            stored["uniformity"],
            {int(bits): stored[_COVARIANCE + bits] for bits in sets},
            {int(bits): int(stored[_COUNT + bits]) for bits in sets},
        )
        return cls(stored["means"], levels, population)

    def to_bytes(self) -> bytes:
        """As safetensors."""
        named = {"means": self.means}
        if self.levels is not None:
            named |= {"alignment": self.levels.alignment, "uniformity": self.levels.uniformity}
            named |= {f"{_COVARIANCE}{bits}": c for bits, c in self.levels.covariance.items()}
            counts = self.levels.counts.items()
            named |= {f"{_COUNT}{bits}": torch.tensor(count) for bits, count in counts}
        if self.population is not None:
            arrays = self.population.arrays().items()
            named |= {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays}
        return save({name: tensor.contiguous() for name, tensor in named.items()})


@dataclass(frozen=True)
class HeldOutSummary:
    """The held-out set under each model: for scoring, and for people.

    Args:
        failures: Of the samples that were left out.
        modalities: Samples that have each of them.
        models: Mean and standard error of the consistency of H under each model.
        target: Of the target's consistency less that of the references; None without one.
    """

    statistics: HeldOutStatistics
    samples: int
    failures: list[Failure]
    modalities: dict[str, int]
    models: list[dict[str, float | None]]
    target: dict[str, Any] | None


def summarize(
    parts: Callable[[], Iterable[Part[Embedded]]],
    modalities: Sequence[str],
    *,
    target: bool,
    paired: bool = False,
) -> HeldOutSummary:
    """Sum H up; its parts are gone through twice, one at a time in memory.

    Args:
        target: The last of the models is a target.
        paired: Models 2k and 2k + 1 train on complements.

    Raises:
        HeldOutError: H lacks a modality, or an embedding is not finite.
    """
    sums: list[MeanAccumulator] = []
    failures: list[Failure] = []
    for part in parts():
        failures += part.failures
        rows = part.rows
        sums = sums or [MeanAccumulator(modalities, rows.mean.shape[-1]) for _ in rows.mean]
        for accumulator, mean in zip(sums, rows.mean, strict=True):
            accumulator.add(mean[None], rows.present)
    if failures and not any(bool(one.counts.any()) for one in sums):
        raise HeldOutError(
            f"none of the {len(failures)} held-out samples can be used; the first is "
            f"{failures[0].shard}, {failures[0].key}: {failures[0].detail}"
        )
    means = torch.stack([accumulator.means() for accumulator in sums])
    values: list[Tensor] = []
    assigned: list[Tensor | None] = []
    calibration = CalibrationAccumulator(len(sums), len(modalities))
    for part in parts():
        own = [_own_agreement(one, part.rows, number) for number, one in enumerate(sums)]
        assigned.append(part.rows.assigned)
        values.append(torch.stack([metric.cmc(one, part.rows.present) for one in own]))
        if target:
            calibration.add(own, part.rows.present)
    cmc = torch.cat(values, dim=1)
    gap = _mean_and_se(cmc[-1] - cmc[:-1].mean(dim=0)) if target else None
    return HeldOutSummary(
        HeldOutStatistics(
            means,
            calibration.levels() if target else None,
            _population(cmc, assigned, paired=paired, target=target),
        ),
        samples=cmc.shape[1],
        failures=failures,
        modalities=dict(zip(modalities, sums[0].counts.tolist(), strict=True)),
        models=[dict(zip(("cmc_mean", "cmc_se"), _mean_and_se(own), strict=True)) for own in cmc],
        target=gap and {"gap": gap[0], "gap_se": gap[1]},
    )


def _population(
    cmc: Tensor, assigned: Sequence[Tensor | None], *, paired: bool, target: bool
) -> Population | None:
    known = [one for one in assigned if one is not None]
    if len(known) < len(assigned):
        return None
    return Population(cmc.t().double().numpy(), torch.cat(known).numpy(), paired, target)


def _mean_and_se(values: Tensor) -> tuple[float, float | None]:
    count = len(values)
    se = float(values.std(unbiased=True)) / count**0.5 if count > 1 else None
    return float(values.mean()), se


def _own_agreement(accumulator: MeanAccumulator, rows: Embedded, number: int) -> Agreement:
    """Agreement of held-out samples under one model, leaving each out of its own reference."""
    mean = rows.mean[number]
    others = accumulator.leave_one_out(mean[None], rows.present)
    uniformity = mean.double() @ others.transpose(-1, -2)
    both = rows.present[:, :, None] & rows.present[:, None, :]
    return Agreement(rows.alignment[number].double(), torch.where(both, uniformity, 0.0))
