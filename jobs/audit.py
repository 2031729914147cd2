"""Audit as a Ray job: ``ray job submit --working-dir . -- python jobs/audit.py CONFIG [--set …]``.

The same as ``multimem audit``, in the cluster that runs the job; progress goes to the job's log
as plain lines.
"""

from __future__ import annotations

import sys

from multimem_ray.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "audit")
    main()
