"""``python -m experiments.exits`` is ``dsnn exits``, see `dsnn.run.exits`."""

import sys

from dsnn.run.exits import main

if __name__ == "__main__":
    sys.exit(main())
