"""Embed as a Ray job: ``ray job submit --working-dir . -- python jobs/embed.py CONFIG [--set …]``.

The same as ``multimem embed``: the shards that are not embedded yet, by models that are trained.
"""

from __future__ import annotations

import sys

from multimem_ray.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "embed")
    main()
