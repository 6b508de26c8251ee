"""``python -m experiments.run`` is ``dsnn run``, see `dsnn.run.cli`."""

import sys

from dsnn.run.cli import main

if __name__ == "__main__":
    sys.exit(main())
