"""The hosts that the host's contract is asked of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reference_runtime.real_host import RealHost
from reference_runtime.sim.sim_host import SimHost
from tests.unit.runtime.any_host import Machine


@pytest.fixture(params=[RealHost, SimHost])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    host = request.param()
    machine = Machine(host)
    yield machine
    host.close()
    for file in machine.kept:
        file.close()
