"""hexshards.loader as it is without the extra that compiles."""

from __future__ import annotations

import sys

sys.modules["numba"] = None  # type: ignore[assignment]  # to import it is now an ImportError

from systems.hexshards_dense import batches as batches  # noqa: E402
from systems.hexshards_dense import prepare as prepare  # noqa: E402
