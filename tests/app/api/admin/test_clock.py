"""``/api/clock``: what the operator sees of the ledger's time, and the confirmation."""

import pytest

from app.ledger.time import ClockState
from tests.app.api.admin.conftest import Desk

HOUR_MS = 3_600_000


async def test_a_clock_that_agrees(desk: Desk) -> None:
    state = (await desk.http.get("/api/clock")).json()
    assert sorted(state) == sorted(ClockState.__struct_fields__)
    assert (state["suspended"], state["step_ms"], state["lead_ms"]) == (False, 0, 0)
    assert 0 <= state["clock_ms"] - state["ledger_ms"] < 10_000


async def test_a_doubt_is_shown_and_confirmed(desk: Desk) -> None:
    ahead_ms = desk.appliance.services.clock.now_ms() + HOUR_MS
    desk.appliance.services.clock.start_from(ahead_ms)  # as if the server had run until then
    state = (await desk.http.get("/api/clock")).json()
    assert state["suspended"]
    assert state["suspended_since_ms"] == ahead_ms
    assert abs(state["step_ms"] + HOUR_MS) < 10_000
    assert "turnpike clock confirm" in state["advice"]

    for _ in range(2):
        answer = await desk.http.post("/api/clock/confirm")
        assert answer.status_code == 200
        state = answer.json()
        assert (state["suspended"], state["advice"]) == (False, "")
        assert state["ledger_ms"] >= ahead_ms
        assert abs(state["lead_ms"] - HOUR_MS) < 10_000


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/clock"), ("POST", "/api/clock/confirm")]
)
async def test_it_is_the_owners(desk: Desk, method: str, path: str) -> None:
    headers = {"authorization": f"Bearer {await desk.member('mallory')}"}
    answer = await desk.http.request(method, path, headers=headers)
    assert answer.status_code == 403
