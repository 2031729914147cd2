"""JSON files of our own, read by one helper: an object with the keys it must have, or one line.

What a kill, a full disk or a hand left of a file is told with the file's name and the way out.
"""

from __future__ import annotations

import json
from typing import Any

from multimem_ray.errors import StorageError
from multimem_ray.storage import Storage

HELD_OUT_AGAIN = "remove held_out/ and run `multimem score` again: it is embedded anew"


def parsed(data: bytes, url: str, way_out: str, **fields: Any) -> dict[str, Any]:
    """The object in the bytes of a JSON file.

    Args:
        url: The file's name, for errors.
        way_out: What to do about a damaged file.
        fields: Keys that must be there, and the type, or the types, of each.

    Raises:
        StorageError: It is damaged.
    """
    content = parsed_value(data, url, way_out)
    if not isinstance(content, dict):
        raise damaged(url, "no JSON object", way_out)
    for name, kind in fields.items():
        if not isinstance(content.get(name), kind):
            raise damaged(url, f"'{name}' is absent or of another kind", way_out)
    return content


def parsed_value(data: bytes, url: str, way_out: str) -> Any:
    """The value in the bytes of a JSON file, whatever it is.

    Raises:
        StorageError: It is damaged.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise damaged(url, str(error), way_out) from error


def read_own(storage: Storage, url: str, way_out: str, **fields: Any) -> dict[str, Any]:
    """The object in a JSON file; see :func:`parsed`."""
    return parsed(storage.read_bytes(url), url, way_out, **fields)


def damaged(url: str, reason: object, way_out: str) -> StorageError:
    """The error about a file of our own that is not as it was written."""
    said = " ".join(str(reason).split())[:200]
    return StorageError(f"{url}: damaged ({said}); {way_out}")
