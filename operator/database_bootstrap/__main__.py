"""`python -m database_bootstrap`: the same as `database-bootstrap`."""

import sys

from database_bootstrap.cli import main

if __name__ == "__main__":
    sys.exit(main())
