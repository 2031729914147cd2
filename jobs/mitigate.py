"""Mitigation as a job: ``ray job submit --working-dir . -- python jobs/mitigate.py CONFIG``.

The same as ``multimem mitigate``: train by a recipe that memorizes less, score with references of
the same recipe, and compare with the audit that ``mitigation.references`` names.
"""

from __future__ import annotations

import sys

from multimem_ray.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "mitigate")
    main()
