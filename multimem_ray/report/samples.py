"""Fetches the samples that the page shows, and makes something small to look at or listen to.

Only the shards in which shown samples lie are read, each up to the last one wanted. Whatever
comes out of a shard is decoded under limits and encoded anew: no byte of it reaches the page, nor
what a picture's metadata may tell. What cannot be shown becomes a line of text; nothing here
raises for a sample.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import soundfile
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from multimem_ray.errors import AbsentError, MultiMemError
from multimem_ray.foreign_text import visible
from multimem_ray.modalities import registry
from multimem_ray.modalities.decoder import decode_one
from multimem_ray.modalities.image import FORMATS
from multimem_ray.report.thumbnails import drawn
from multimem_ray.results.table import Progress
from multimem_ray.sample import Failure, Sample
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import Storage

Kind = Literal["image", "audio", "video", "text", "note"]
Place = tuple[str, str]
"""Shard and key: what names a sample across a run."""
Settings = Mapping[str, Mapping[str, Any]]
"""Modality to its settings, as the configuration's section ``modalities``."""

PAGE_BYTES = 6_500_000  # of encoded media on one page, so that it stays below 8 MB
SAMPLE_BYTES = 200_000
MAX_PIXELS = 64_000_000
PICTURE_SIZES = ((360, 82), (280, 72), (200, 62), (120, 50))  # longest side and quality, by turns
STRIP_FRAMES = 4
STRIP_SIZES = ((150, 78), (100, 65), (64, 50))
CLIP_SECONDS, CLIP_RATE = 4.0, 16_000
PEAKS = 100
CAPTIONS = 5
THREADS = 4


@dataclass(frozen=True, slots=True)
class Content:
    """One modality of one sample, ready for the page.

    Attributes:
        modality: Its name.
        kind: How it is shown; ``note`` says in ``lines`` why it is not.
        uri: ``data:`` URI of the picture, strip or clip.
        lines: Captions, or the note.
        peaks: Loudness over time, 0..1, of a clip.
        tiny: The picture is only a few pixels wide and is shown enlarged, pixel by pixel.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
    """

    modality: str
    kind: Kind
    uri: str = ""
    lines: tuple[str, ...] = ()
    peaks: tuple[float, ...] = ()
    tiny: bool = False
    width: int = 0
    height: int = 0


def fetch_contents(
    places: Iterable[Place],
    fields: Mapping[str, str],
    storage: Storage,
    *,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> dict[Place, list[Content]]:
    """What to show of each sample, in the order of the modalities' names.

    Args:
        places: Shard and key of the wanted samples.
        fields: Modality to where it lies, as in ``run.json``.
        storage: Where the shards lie.
        settings: Of the modalities that come from plugins, which are drawn as the models get them.
        progress: Called with (shards done, shards in total).

    Returns:
        Contents of every place; of one that cannot be read, a note that says why. All media
        together stay below ``PAGE_BYTES`` as they stand in the page.
    """
    wanted: dict[str, set[str]] = {}
    for shard, key in places:
        wanted.setdefault(shard, set()).add(key)
    total = sum(len(keys) for keys in wanted.values())
    limit = min(SAMPLE_BYTES, PAGE_BYTES // max(total, 1))
    contents: dict[Place, list[Content]] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        jobs = [
            pool.submit(_from_shard, shard, keys, fields, storage, limit, settings or {})
            for shard, keys in wanted.items()
        ]
        for done, job in enumerate(jobs, 1):
            contents |= job.result()
            if progress is not None:
                progress(done, len(jobs))
    return contents


def contents_of(
    sample: Sample, fields: Mapping[str, str], limit: int, settings: Settings | None = None
) -> list[Content]:
    """Contents of one sample, within ``limit`` bytes as they stand in the page."""
    found: list[Content] = []
    left = limit
    for place, name in enumerate(sorted(fields)):
        # What one modality leaves unused is there for those after it.
        own = (settings or {}).get(name, {})
        content = _content(sample, name, fields[name], left // (len(fields) - place), own)
        if content is not None:
            found.append(content)
            left -= len(content.uri)
    return found


def _from_shard(
    shard: str,
    keys: set[str],
    fields: Mapping[str, str],
    storage: Storage,
    limit: int,
    settings: Settings,
) -> dict[Place, list[Content]]:
    found: dict[Place, list[Content]] = {}
    reason = "its key is not in the shard any more"
    for item in read_shard(shard, storage):
        if isinstance(item, Failure):
            if item.key is None or item.key in keys:
                reason = visible(item.detail, 200)
        elif item.key in keys:
            found[shard, item.key] = contents_of(item, fields, limit, settings)
            if len(found) == len(keys):
                return found
    for key in keys:
        if (shard, key) not in found:
            found[shard, key] = [_note("sample", f"The content cannot be shown: {reason}.")]
    return found


def _content(
    sample: Sample, name: str, field: str, limit: int, settings: Mapping[str, Any]
) -> Content | None:
    try:
        value = _value(sample, field)
        if value is None:
            return None
        content = list(_shown(name, value, settings))
    except AbsentError:
        return None
    except (MultiMemError, OSError, ValueError, TypeError, RuntimeError, SyntaxError) as error:
        return _note(name, f"{name} cannot be shown: {visible(str(error), 160)}")
    except MemoryError:
        return _note(name, f"{name} cannot be shown: too large to decode here")
    for smaller in content:
        if len(smaller.uri) <= limit:
            return smaller
    return _note(name, f"{name} left out, so that this page stays small")


def _value(sample: Sample, field: str) -> Any | None:
    for alternative in field.split(";"):
        path = alternative.strip().removeprefix(".")
        value = sample.field(path if path.startswith("json.") else path.lower())
        if value is not None:
            return value
    return None


def _shown(name: str, value: Any, settings: Mapping[str, Any]) -> Iterable[Content]:
    """The content in ever smaller forms. A modality from a plugin is drawn as models get it."""
    known = {"audio": _clip, "video": _strip, "image": _picture}.get(name)
    if known is not None:
        return known(name, value)
    found = _drawn(name, value, settings) if name != "text" and name in registry.names() else None
    if found is not None:
        return [found]
    if not isinstance(value, bytes) or name == "text":
        return [_captions(name, value)]
    try:
        return list(_picture(name, value))
    except (OSError, ValueError, SyntaxError):
        return [_note(name, f"{name}: {len(value):,} bytes")]


def _drawn(name: str, value: Any, settings: Mapping[str, Any]) -> Content | None:
    modality = registry.create(name, settings)
    picture = drawn(modality.view(decode_one(modality, value), None), modality.spec)
    if picture is None:
        return None
    uri = _encoded(picture, "PNG", 0)
    tiny = max(picture.size) <= 64
    return Content(name, "image", uri, tiny=tiny, width=picture.width, height=picture.height)


def _captions(name: str, value: Any) -> Content:
    if isinstance(value, bytes):
        value = value.decode("utf-8-sig", "replace")
    captions = value if isinstance(value, list) else [value]
    lines = [visible(str(caption)) for caption in captions[:CAPTIONS]]
    if len(captions) > CAPTIONS:
        lines.append(f"… and {len(captions) - CAPTIONS} more")
    return Content(name, "text", lines=tuple(line for line in lines if line))


def _picture(name: str, data: bytes) -> Iterable[Content]:
    # A closed list of formats: Pillow's others include one that runs an interpreter.
    try:
        source = Pillow.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError(f"it is none of {', '.join(FORMATS)}") from error
    with source as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{opened.width} x {opened.height} pixels are too many")
        opened.draft("RGB", (2 * PICTURE_SIZES[0][0], 2 * PICTURE_SIZES[0][0]))
        flat = _on_white(ImageOps.exif_transpose(opened))
    if max(flat.size) <= 64:
        whole = _encoded(flat, "PNG", 0)
        yield Content(name, "image", whole, tiny=True, width=flat.width, height=flat.height)
        return
    for side, quality in PICTURE_SIZES:
        small = flat.copy()
        small.thumbnail((side, side), Pillow.Resampling.LANCZOS)
        uri = _encoded(small, "WEBP", quality)
        yield Content(name, "image", uri, width=small.width, height=small.height)


def _on_white(picture: Pillow.Image) -> Pillow.Image:
    if picture.mode in {"I", "I;16", "F"}:
        # Sixteen bits of grey: Pillow would clip them to the lowest eight.
        values = np.asarray(picture, dtype=np.float64)
        low, high = float(values.min()), float(values.max())
        grey = (values - low) * (255.0 / ((high - low) or 1.0))
        return Pillow.fromarray(grey.astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        ground = Pillow.new("RGBA", rgba.size, "white")
        return Pillow.alpha_composite(ground, rgba).convert("RGB")
    return picture.convert("RGB")


def _strip(name: str, value: Any) -> Iterable[Content]:
    side = STRIP_SIZES[0][0]
    settings = {"frames": STRIP_FRAMES, "size": side, "oversize": 1.0, "jitter": False}
    frames = registry.create("video", settings).decode(value)[:, 0].transpose(0, 2, 3, 1)
    gap = np.full((side, 3, 3), 128, np.uint8)  # as quiet on a dark page as on a light one
    joined = np.concatenate([p for frame in frames for p in (gap, frame)][1:], axis=1)
    strip = Pillow.fromarray(joined)
    contents = []
    for height, quality in STRIP_SIZES:
        width = round(strip.width * height / side)
        small = strip.resize((width, height), Pillow.Resampling.LANCZOS)
        uri = _encoded(small, "WEBP", quality)
        contents.append(Content(name, "video", uri, width=width, height=height))
    return contents


def _clip(name: str, value: Any) -> Iterable[Content]:
    settings = {"sample_rate": CLIP_RATE, "seconds": CLIP_SECONDS, "shift": 0.0}
    sound = registry.create("audio", settings).decode(value)
    peaks = _peaks(sound)
    contents = []
    for length in (len(sound), len(sound) // 2, len(sound) // 4):
        buffer = io.BytesIO()
        soundfile.write(buffer, sound[:length], CLIP_RATE, format="MP3")
        uri = _data_uri("audio/mpeg", buffer.getvalue())
        contents.append(Content(name, "audio", uri, peaks=peaks))
    return [*contents, replace(contents[-1], uri="", lines=("sound left out",))]


def _peaks(sound: npt.NDArray[Any]) -> tuple[float, ...]:
    parts = np.array_split(np.abs(sound.astype(np.float64)), min(PEAKS, len(sound)))
    loud = np.array([part.max() for part in parts])
    return tuple(float(round(p, 3)) for p in loud / (loud.max() or 1.0))


def _encoded(picture: Pillow.Image, kind: str, quality: int) -> str:
    buffer = io.BytesIO()
    # A fresh picture carries no metadata of the one it came from.
    clean = Pillow.fromarray(np.asarray(picture))
    clean.save(buffer, kind, **({"optimize": True} if kind == "PNG" else {"quality": quality}))
    return _data_uri(f"image/{kind.lower()}", buffer.getvalue())


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _note(name: str, words: str) -> Content:
    return Content(name, "note", lines=(words,))


def places_of(rows: Sequence[Mapping[str, Any]]) -> list[Place]:
    """Shard and key of score rows."""
    return [(str(row["shard"]), str(row["key"])) for row in rows]
