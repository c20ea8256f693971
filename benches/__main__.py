"""`python -m benches` is `python benches/run.py`."""

import sys

from benches.run import main

sys.exit(main())
