"""``python -m experiments.reproduce`` is ``dsnn reproduce``, see `dsnn.run.reproduce`."""

import sys

from dsnn.run.reproduce import main

if __name__ == "__main__":
    sys.exit(main())
