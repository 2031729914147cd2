"""How much of a shard is taken into memory, before anything in it is decoded."""

from __future__ import annotations

from pydantic import Field

from multimem_ray.config.base import Section

MIB = 1 << 20
_EXTENSIONS = {
    "image": "jpg jpeg jpe jfif png webp gif bmp tif tiff avif ppm pgm",
    "audio": "flac wav ogg mp3 opus oga aiff aif m4a aac weba mka",
    "video": "mp4 webm mkv mov m4v avi",
    "text": "txt text caption",
    "json": "json",
}
_KIND_OF = {name: kind for kind, names in _EXTENSIONS.items() for name in names.split()}


class LimitsConfig(Section):
    """Bounds of what is read; what is beyond one is a row in ``errors/`` of kind ``too_large``.

    A modality has limits of its own on what is decoded, under ``modalities``.
    """

    name_bytes: int = Field(
        8192, ge=16, description="longest name of a member, label or group of a sample, bytes"
    )
    keys_bytes: int = Field(
        256 * MIB,
        ge=1,
        description="keys of a shard altogether, and 100 bytes a sample; the rest is left unread",
    )
    members: int = Field(10_000, ge=1, description="most members of a sample")
    image_bytes: int = Field(256 * MIB, ge=1, description="largest member that is a picture, bytes")
    audio_bytes: int = Field(1024 * MIB, ge=1, description="largest member that is sound, bytes")
    video_bytes: int = Field(1024 * MIB, ge=1, description="largest member that is a video, bytes")
    text_bytes: int = Field(16 * MIB, ge=1, description="largest member that is text, bytes")
    json_bytes: int = Field(16 * MIB, ge=1, description="largest member that is JSON, bytes")
    other_bytes: int = Field(1024 * MIB, ge=1, description="largest of all other members, bytes")
    sample_bytes: int = Field(
        1024 * MIB, ge=1, description="all members of a sample together, bytes"
    )
    json_depth: int = Field(64, ge=1, le=400, description="lists and objects inside one another")
    json_values: int = Field(
        250_000, ge=1, description="most values in a member that is JSON (brackets and commas)"
    )
    expansion: float = Field(
        200.0,
        gt=1,
        description="most that a compressed shard may grow in unpacking, from its 16th MiB on; the "
        "rest is left unread",
    )

    def bytes_of(self, extension: str) -> tuple[str, int]:
        """Setting and limit of a member with this extension, packed by gzip or not."""
        kind = _KIND_OF.get(extension.removesuffix(".gz").rpartition(".")[2], "other")
        name = f"{kind}_bytes"
        return name, getattr(self, name)

    @property
    def smallest_member(self) -> int:
        """Bytes that a member of any kind may have."""
        return min(int(getattr(self, f"{kind}_bytes")) for kind in (*_EXTENSIONS, "other"))


DEFAULT_LIMITS = LimitsConfig()
