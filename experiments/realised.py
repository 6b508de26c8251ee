"""``python -m experiments.realised`` is ``dsnn speed``, see `dsnn.run.measured_speed`."""

import sys

from dsnn.run.measured_speed import main

if __name__ == "__main__":
    sys.exit(main())
