"""What most families' tests ask: a module imports these, and says what to run in CONFIG, RUNS and VARIANTS.

`RUNS` are ways to run a step of `CONFIG`, `VARIANTS` changes of the config (a list, or a mapping with their names).
"""

from collections.abc import Callable
from typing import Any

import pytest

from estimators.workload import Workload

MakeWorkload = Callable[..., Workload]
Assert = Callable[[Workload], None]


def test_a_step_is_its_trace(
    way: dict[str, Any], request: pytest.FixtureRequest, workload_of: MakeWorkload, assert_like_trace: Assert
) -> None:
    assert_like_trace(workload_of(request.module.CONFIG, **way))


def test_variants_are_their_traces(
    change: dict[str, Any], request: pytest.FixtureRequest, workload_of: MakeWorkload, assert_like_trace: Assert
) -> None:
    assert_like_trace(workload_of(request.module.CONFIG | change, batch=2))
