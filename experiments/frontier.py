"""``python -m experiments.frontier`` is ``dsnn frontier``, see `dsnn.run.frontier`."""

import sys

from dsnn.run.frontier import main

if __name__ == "__main__":
    sys.exit(main())
