"""What weights a run was given: told by their content, not by where they lie.

A checkpoint that is replaced by another at the same place makes other scores, so the fingerprint
of a run holds a digest of everything that it was started from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from multimem_ray.config import Config, DesignConfig, ModelConfig, digest
from multimem_ray.errors import StorageError
from multimem_ray.own_files import read_own
from multimem_ray.storage import Storage

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".json")
_BLOCK = 1 << 22


def weights_digest(config: Config, storage: Storage) -> str:
    """Digest of the files of weights that the configuration names; empty if it names none.

    A name that a hub resolves (``open_clip:ARCH/TAG``, ``hf:ORG/NAME``) or a plugin stands for
    itself. Files on object stores are told by their ETag.
    """
    found: dict[str, str] = {}
    for place in _places(config.model, config.design):
        found |= dict(_files(place, storage))
    references = config.mitigation.references
    if config.mitigation.kind != "none" and references is not None:
        # Scores and weights of a run follow from its fingerprint.
        url = storage.join(references, "run.json")
        if storage.exists(url):
            way_out = "set mitigation.references to the output of a finished audit"
            found[url] = read_own(storage, url, way_out, fingerprint=str)["fingerprint"]
    return digest(sorted(found.values())) if found else ""


def _places(model: ModelConfig, design: DesignConfig) -> Iterator[str]:
    given = [item.checkpoint for item in design.given]
    target = [design.target.checkpoint] if design.target else []
    for name in (model.init, model.adapter, *given, *target):
        if name:
            yield _without_scheme(name)


def _without_scheme(name: str) -> str:
    scheme, found, place = name.partition(":")
    if not found or scheme not in {"open_clip", "hf", "local"}:
        return name
    return place.partition("/")[2] if scheme == "open_clip" else place


def _files(place: str, storage: Storage) -> Iterator[tuple[str, str]]:
    if storage.is_remote(place):
        yield from _remote(place, storage)
        return
    path = Path(place)
    if path.is_file():
        yield place, _content(path)
    elif path.is_dir():
        for file in sorted(path.iterdir()):
            # What a checkpoint's folder says of its past (history, a marker) changes no weight.
            if file.suffix in _WEIGHTS and file.name != "membership.json":
                yield str(file), _content(file)


def _remote(place: str, storage: Storage) -> Iterator[tuple[str, str]]:
    folder = place if place.endswith(".safetensors") else storage.join(place, "model.safetensors")
    try:
        yield folder, storage.info(folder).version
    except StorageError:
        # Whoever loads it says what is missing, and what for.
        return


def _content(path: Path) -> str:
    found = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()
