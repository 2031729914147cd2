"""What a sample holds, as a name: equal contents have equal names, whatever their keys.

The name is a digest of what the run's modalities are taken from, before anything is decoded: two
samples are exact copies when every modality has the same bytes. It follows from the sample alone,
so any worker knows it, and nothing has to be looked up or stored.
"""

from __future__ import annotations

import hashlib
import json

from multimem_ray.modalities.fields import Fields
from multimem_ray.sample import Sample

_BYTES = 12  # of a thousand million samples, two share a name by chance in one run of 10^11


def content_name(sample: Sample, fields: Fields) -> str | None:
    """Digest of a sample's modalities in 24 hex digits; None where it has fewer than two.

    A sample that cannot be scored is nobody's copy. Text is the same whether it lies in a member
    or in the JSON; extensions, keys, labels and whatever no modality uses do not count.

    Raises:
        SampleError: Its JSON is needed and cannot be read.
    """
    digest = hashlib.blake2b(digest_size=_BYTES, person=b"multimem content")
    first: dict[int, str] = {}
    present = 0
    for name in fields.names:
        value = fields.value(sample, name)
        if value is None:
            continue
        present += 1
        if id(value) in first:
            # The sound of a video lies in the same bytes: they are digested once.
            digest.update(f"{name}={first[id(value)]};".encode())
            continue
        first[id(value)] = name
        data = _bytes(value)
        digest.update(f"{name}:{len(data)};".encode())
        digest.update(data)
    return digest.hexdigest() if present >= 2 else None


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text.encode("utf-8", "surrogatepass")
