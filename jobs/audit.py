"""Train, score and report: what is not done yet.

``multimem audit`` as a Ray job; progress goes to the job's log as plain lines:

    ray job submit --working-dir . -- python jobs/audit.py CONFIG [--set …]
"""

import sys

from multimem_ray.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "audit")
    main()
