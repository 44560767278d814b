"""`python -m clozeline`, the same as `clozeline`."""

from __future__ import annotations

import sys

from clozeline.cli import command

sys.exit(command())
