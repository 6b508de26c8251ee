"""``python -m experiments.sweep`` is ``dsnn search``, see `dsnn.run.sweep`."""

import sys

from dsnn.run.sweep import main

if __name__ == "__main__":
    sys.exit(main())
