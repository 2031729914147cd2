"""Train as a Ray job: ``ray job submit --working-dir . -- python jobs/train.py CONFIG [--set …]``.

The same as ``multimem train``: the reference models that are not trained yet.
"""

from __future__ import annotations

import sys

from multimem_ray.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
