"""``python -m dsnn``, the command ``dsnn``."""

import sys

from dsnn.run.main import main

if __name__ == "__main__":
    sys.exit(main())
