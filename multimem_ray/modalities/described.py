"""What the head of a member says of it: format, size, rate, orientation; nothing is decoded."""

from __future__ import annotations

import io
import warnings
from typing import Any

from multimem_ray.errors import DecodeError
from multimem_ray.modalities.containers import container_of

_ORIENTATION = 0x0112  # of EXIF
_ENCODINGS = {b"\xef\xbb\xbf": "UTF-8 with a mark", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}

Facts = dict[str, str | float]
"""Text is counted by value, of numbers the least and most are kept."""


def described(modality: str, data: bytes) -> Facts:
    """Facts of a member by the modality that its extension stands for; none of unknown ones.

    Raises:
        DecodeError: It is not what its extension says, as far as its head tells.
    """
    if not data:
        raise DecodeError("it holds nothing", kind="empty")
    describe = {"image": _picture, "audio": _sound, "video": _film, "text": _text}.get(modality)
    return {} if describe is None else describe(data)


def _picture(data: bytes) -> Facts:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a large picture is a fact here, and no danger
            image = Image.open(io.BytesIO(data))
            turned = image.getexif().get(_ORIENTATION, 1)
    except UnidentifiedImageError as error:
        raise DecodeError("no picture of a format that is known") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise DecodeError(f"no picture that can be read: {error}") from error
    except Image.DecompressionBombError as error:
        raise DecodeError(f"a picture of too many pixels: {error}", kind="too_large") from error
    return {
        "format": str(image.format),
        "mode": image.mode,
        "orientation": str(turned),
        "width": image.width,
        "height": image.height,
    }


def _sound(data: bytes) -> Facts:
    import soundfile

    try:
        info = soundfile.info(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        if container_of(data) is None:
            raise DecodeError(f"no sound that can be read: {error}") from error
        return _streams(data, "audio")
    return {
        "format": f"{info.format} {info.subtype}",
        "channels": str(info.channels),
        "rate": f"{info.samplerate} Hz",
        "seconds": info.frames / info.samplerate,
    }


def _film(data: bytes) -> Facts:
    return _streams(data, "video")


def _streams(data: bytes, kind: str) -> Facts:
    import av

    container = container_of(data)
    if container is None:
        raise DecodeError(f"no {kind} in a container that is known (MP4, WebM, Matroska, AVI)")
    try:
        with av.open(io.BytesIO(data), mode="r", format=container) as opened:
            stream: Any = next((s for s in opened.streams if s.type == kind), None)
            if stream is None:
                raise DecodeError(f"there is no {kind} in it", kind="empty")
            facts: Facts = {"format": f"{container} {stream.codec_context.name}"}
            if opened.duration:
                facts["seconds"] = opened.duration / 1e6
            if kind == "audio":
                return facts | {
                    "rate": f"{stream.codec_context.sample_rate} Hz",
                    "channels": str(stream.codec_context.channels),
                }
            rate = {"frames per second": float(stream.average_rate)} if stream.average_rate else {}
            sound = any(s.type == "audio" for s in opened.streams)
            return (
                facts
                | rate
                | {
                    "sound": "with sound" if sound else "silent",
                    "width": stream.codec_context.width,
                    "height": stream.codec_context.height,
                }
            )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise DecodeError(f"no {kind} that can be read: {error}") from error


def _text(data: bytes) -> Facts:
    named = next((name for mark, name in _ENCODINGS.items() if data.startswith(mark)), None)
    try:
        text = data.decode("utf-16" if named == "UTF-16" else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DecodeError(f"neither UTF-8 nor UTF-16 text: {error}") from error
    return {"encoding": named or ("ASCII" if text.isascii() else "UTF-8"), "characters": len(text)}
