"""Train by a recipe that memorizes less, and compare with an earlier audit.

``multimem mitigate`` as a Ray job; progress goes to the job's log as plain lines:

    ray job submit --working-dir . -- python jobs/mitigate.py CONFIG [--set …]
"""

import sys

from multimem_ray.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "mitigate")
    main()
