"""``python -m experiments.ensemble`` is ``dsnn ensemble``, see `dsnn.run.ensemble`."""

import sys

from dsnn.run.ensemble import main

if __name__ == "__main__":
    sys.exit(main())
