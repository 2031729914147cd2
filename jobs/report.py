"""Report as a job: ``ray job submit --working-dir . -- python jobs/report.py CONFIG [--set …]``.

The same as ``multimem report``: summary.json and report.html from what is scored so far.
"""

from __future__ import annotations

import sys

from multimem_ray.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "report")
    main()
