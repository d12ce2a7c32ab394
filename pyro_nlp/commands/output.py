"""Standard output, as the commands write it (layer: cli)."""

from __future__ import annotations

import os
import sys

from rich.console import Console

OUT = Console(soft_wrap=True, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200)
"""A table that is piped keeps a row on a line."""
