"""``python -m experiments.inspect`` is ``dsnn inspect``, see `dsnn.run.inspect`."""

import sys

from dsnn.run.inspect import main

if __name__ == "__main__":
    sys.exit(main())
