"""Write summary and report from what is scored so far.

``multimem report`` as a Ray job; progress goes to the job's log as plain lines:

    ray job submit --working-dir . -- python jobs/report.py CONFIG [--set …]
"""

import sys

from multimem_ray.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "report")
    main()
