"""``python -m lossevo.export.verify FOLDER FILE...``: the fresh process of :mod:`lossevo.export.verification`."""

from __future__ import annotations

import sys
from pathlib import Path

from lossevo.export.verification import compare

if __name__ == "__main__":
    folder, *files = sys.argv[1:]
    compare(Path(folder), files)
