"""What a modality is: two functions between the bytes of a shard and a tensor.

``decode`` turns foreign bytes into a canonical array once per sample; ``views`` makes random views
of many of them at once, seeded by the samples, on whatever device the arrays are. Where that is too
much to ask, ``view`` makes one view of one sample in NumPy. A modality lives in one file of this
package, or in a module of the user's own: nothing else has to know it.

Decoding is where foreign data enters, so it is bounded: sizes are read from headers, and limits
are settings. It is deterministic: the same bytes give the same array, whoever decodes them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from multimem_ray.errors import DecodeError

if TYPE_CHECKING:
    from torch import Tensor

    from multimem_ray.modalities.batch import Stacked
    from multimem_ray.modalities.draws import Draws

Array: TypeAlias = NDArray[Any]


class ModalitySettings(BaseModel):
    """Settings that every modality has; each adds its own, and its limits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strength: float = Field(
        1.0, ge=0, le=10, description="how far a view departs from the clean input; 0 = not at all"
    )


@dataclass(frozen=True)
class Spec:
    """What a view looks like to a tower.

    Args:
        kind: ``image`` (channels, height, width), ``series`` (samples,) or (channels, samples),
            ``frames`` (frames, channels, height, width), ``tokens`` (length,) with 0 as padding.
        shape: Shape of one view, without the batch.
        dtype: Name of its NumPy dtype. Integers span the range of their type: uint8 0..255,
            int16 -32768..32767; tokens are ids below ``vocab``.
        vocab: Number of token ids, padding included; None if there are no tokens.
        sample_rate: Values per second of a series; None if there is no time.
    """

    kind: Literal["image", "series", "frames", "tokens"]
    shape: tuple[int, ...]
    dtype: str
    vocab: int | None = None
    sample_rate: int | None = None


class Modality(ABC):
    """One kind of data: how it is decoded and varied.

    A subclass gives ``name``, ``extensions``, its ``Settings``, ``spec``, ``decode``, and either
    ``views`` or ``view``, of which each has the other as its default; it is announced with
    :func:`multimem_ray.modalities.registry.register`. It holds no state but its settings, so it is
    picklable and may be used from several threads.

    Args:
        settings: An instance of the class's ``Settings``; default: all defaults.
    """

    name: ClassVar[str]
    extensions: ClassVar[tuple[str, ...]]
    """Member extensions by preference, lower-case, without the leading dot."""
    json_fields: ClassVar[tuple[str, ...]] = ()
    """Fields of a sample's JSON that are looked for when no member has such an extension."""
    carriers: ClassVar[tuple[str, ...]] = ()
    """Extensions of other modalities' members that may hold this one too, as a video its sound;
    looked into, with :meth:`carried`, when no sample has a member or field of its own."""
    Settings: ClassVar[type[ModalitySettings]] = ModalitySettings

    settings: ModalitySettings

    def __init__(self, settings: ModalitySettings | None = None) -> None:
        self.settings = self.Settings.model_validate({}) if settings is None else settings

    @classmethod
    def settled(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings without what depends on the machine, once for a whole run.

        A run is opened with what this gives, so that its other machines and its resumption have
        the same.
        """
        return dict(settings)

    @property
    @abstractmethod
    def spec(self) -> Spec:
        """Shape and kind of a view."""

    @abstractmethod
    def decode(self, data: Any) -> Array:
        """Canonical array of one sample: deterministic, bounded, compact.

        Args:
            data: Bytes of the member, or the value of a JSON field.

        Raises:
            DecodeError: ``undecodable``, ``empty`` or ``too_large``; names the limit.
            AbsentError: The member is another modality's, and holds nothing of this one.
        """

    def carried(self, data: bytes) -> bool:
        """Whether a member with one of the extensions ``carriers`` holds this modality."""
        del data
        return False

    def views(self, decoded: Stacked, draws: Draws | None) -> Tensor:
        """Random views (N, V, *spec.shape) of ``spec.dtype``, on the device of the arrays.

        A view must not depend on what else is in the batch, nor on the device.

        Args:
            decoded: What ``decode`` returned of N samples; it is not changed.
            draws: Source of all randomness; None (or strength 0) gives the clean view, V = 1.
        """
        import torch

        count = 1 if draws is None else len(draws.views)
        views: list[Array] = []
        for row in range(len(decoded)):
            sources = [None] if draws is None else draws.generators(row)
            views += [self.view(decoded.array(row), rng) for rng in sources]
        stacked = np.stack(views)
        return torch.from_numpy(stacked.reshape(len(decoded), count, *stacked.shape[1:]))

    def view(self, decoded: Array, rng: np.random.Generator | None) -> Array:
        """One random view, of ``spec.shape`` and ``spec.dtype``.

        Args:
            decoded: What ``decode`` returned; it is not changed.
            rng: Source of all randomness, not to be kept; None (or strength 0) gives the clean
                view.
        """
        import torch

        from multimem_ray.modalities.batch import Stacked
        from multimem_ray.modalities.draws import Draws

        draws = None
        if rng is not None:
            draws = Draws(torch.from_numpy(rng.integers(1 << 63, size=1)), (0,))
        view: Array = self.views(Stacked.of([decoded]), draws)[0, 0].numpy()
        return view

    @classmethod
    def makes_views_at_once(cls) -> bool:
        """Whether it defines ``views``; if not, its views are made where it is decoded."""
        return cls.views is not Modality.views


def as_bytes(data: object, name: str) -> bytes:
    """The bytes of a member, which are not empty.

    Raises:
        DecodeError: ``empty``, or ``undecodable`` if a JSON field was given.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise DecodeError(
            f"{name}: expected the bytes of a file, got a JSON {type(data).__name__}; name a "
            f"member extension in data.fields.{name}"
        )
    if not len(data):
        raise DecodeError(f"{name}: the member has 0 bytes", "empty")
    return bytes(data)


def undecodable(name: str, error: BaseException | str) -> DecodeError:
    """A DecodeError that says what the library said, on one line of at most 200 characters."""
    said = " ".join(str(error).split()) or type(error).__name__
    return DecodeError(f"{name}: cannot be decoded: {said[:200]}")


def too_large(name: str, what: str, limit: str, value: object) -> DecodeError:
    """A DecodeError for a bound: names the setting that raises it."""
    return DecodeError(
        f"{name}: {what}, above the limit modalities.{name}.{limit} = {value}", "too_large"
    )
