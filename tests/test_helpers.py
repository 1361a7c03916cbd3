"""What tests rely on."""

from __future__ import annotations

import os

import pytest
from helpers import quick


def test_a_quick_test_starts_no_process(pytestconfig):
    for event in quick.STARTS:
        with pytest.raises(RuntimeError, match="a quick test starts no process"):
            quick._refuse(event, ())
    quick._refuse("open", ("file",))
    if pytestconfig.getoption("quick"):
        with pytest.raises(RuntimeError, match="a quick test starts no process"):
            os.system("true")
