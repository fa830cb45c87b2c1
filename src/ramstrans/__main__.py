"""`python -m ramstrans`: the command line."""

import sys

from ramstrans.cli import main

if __name__ == "__main__":
    sys.exit(main())
