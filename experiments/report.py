"""``python -m experiments.report`` is ``dsnn report``, see `dsnn.run.report`."""

import sys

from dsnn.run.report import main

if __name__ == "__main__":
    sys.exit(main())
