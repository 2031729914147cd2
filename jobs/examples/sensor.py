"""A modality of your own, in one file: a sensor's time series, from ``.npy`` members.

Name the module in the configuration, and the rest follows: it is found in the shards, trained on,
scored, attributed and shown in the report.

    data: {shards: /data/*.tar, plugins: [jobs.examples.sensor]}
    modalities: {sensor: {channels: 3, length: 256}}
"""

from __future__ import annotations

import io

import numpy as np
from numpy.lib import format as npy
from pydantic import Field

from multimem_ray.errors import DecodeError
from multimem_ray.modalities.base import (
    Array,
    Modality,
    ModalitySettings,
    Spec,
    as_bytes,
    too_large,
    undecodable,
)
from multimem_ray.modalities.registry import register


class SensorSettings(ModalitySettings):
    """What a series looks like, and how far a view departs from it."""

    channels: int = Field(3, ge=1, le=1024, description="rows of the array; 1 = (values,) too")
    length: int = Field(256, ge=1, le=1_000_000, description="values of a view, in each channel")
    shift: float = Field(0.1, ge=0, le=10, description="a view starts up to this share off centre")
    scale: float = Field(0.1, ge=0, le=1, description="largest relative change of size; 0 = none")
    max_values: int = Field(10_000_000, ge=1, description="largest array that is read, values")


@register
class Sensor(Modality):
    """Series of several channels; decoded (channels, values), views (channels, length), float32."""

    name = "sensor"
    extensions = ("npy",)
    Settings = SensorSettings
    settings: SensorSettings

    @property
    def spec(self) -> Spec:
        """Kind ``series``; its default tower takes values of any unit."""
        return Spec("series", (self.settings.channels, self.settings.length), "float32")

    def decode(self, data: object) -> Array:
        """The array as finite float32 (channels, values).

        Raises:
            DecodeError: No ``.npy``, cut short, not numbers, of another shape, or above a limit.
        """
        stream = io.BytesIO(as_bytes(data, self.name))
        try:
            self._check(stream)
            # Without pickle: an array of objects could run code.
            stored = npy.read_array(stream, allow_pickle=False)
        except DecodeError:
            raise
        except (ValueError, TypeError, EOFError, OverflowError, MemoryError) as error:
            raise undecodable(self.name, error) from error
        with np.errstate(over="ignore"):
            series = np.ascontiguousarray(np.atleast_2d(stored), dtype=np.float32)
        if not np.isfinite(series).all():
            raise undecodable(self.name, "it holds values that are not finite")
        return series

    def view(self, decoded: Array, rng: np.random.Generator | None) -> Array:
        """A shifted window, a little larger or smaller; clean: the middle, zeros around it."""
        settings = self.settings
        start, factor = (decoded.shape[1] - settings.length) // 2, 1.0
        if rng is not None and settings.strength:
            shift, scale = (2 * rng.random(2) - 1) * settings.strength
            start += round(shift * settings.shift * settings.length)
            factor += scale * settings.scale
        window = np.zeros((settings.channels, settings.length), dtype=np.float32)
        first, last = max(0, start), min(decoded.shape[1], start + settings.length)
        if first < last:
            window[:, first - start : last - start] = decoded[:, first:last]
        return window * np.float32(factor)

    def _check(self, stream: io.BytesIO) -> None:
        """What the header says, before anything is read or allocated by it."""
        settings = self.settings
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(stream)
        stream.seek(0)
        if dtype.kind not in "fiu":
            raise undecodable(self.name, f"an array of {dtype}, not of real numbers")
        values = int(np.prod(shape, dtype=object))
        if values > settings.max_values:
            raise too_large(self.name, f"{values} values", "max_values", settings.max_values)
        if len(shape) not in {1, 2} or (shape[0] if len(shape) == 2 else 1) != settings.channels:
            wanted = f"({settings.channels}, values)"
            raise undecodable(
                self.name, f"shape {shape}, expected {wanted}: see modalities.sensor.channels"
            )
        if not values:
            raise DecodeError("sensor: the array holds no value", "empty")
