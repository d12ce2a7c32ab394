"""`python -m pyro_nlp` is `pyro-nlp`."""

import sys

from pyro_nlp.cli import main

sys.exit(main())
