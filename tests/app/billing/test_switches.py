"""What an org switches off: with a reason and an author, and on again."""

import pytest

from app.errors import InvalidRequest, NotFound
from tests.app.billing.accounts_world import World


async def test_off_again_and_on(world: World) -> None:
    ann = (await world.user("ann")).user_id
    org_id = await world.org("acme", "ann")
    first = await world.switches.off(org_id, "provider", "mock", "no contract", ann)
    assert (first.reason, first.set_by, first.org_id) == ("no contract", "ann", org_id)
    again = await world.switches.off(org_id, "provider", "mock", "too dear", "operator")
    assert (again.reason, again.set_by) == ("too dear", "operator")
    model = await world.switches.off(org_id, "model", "mock", "same name, other kind", ann)
    assert await world.switches.list(org_id) == [model, again]
    assert await world.switches.on(org_id, "provider", "mock") == again
    assert await world.switches.list(org_id) == [model]
    with pytest.raises(NotFound, match="provider 'mock' is not switched off"):
        await world.switches.on(org_id, "provider", "mock")


async def test_one_orgs_switches_are_not_anothers(world: World) -> None:
    ann = (await world.user("ann")).user_id
    one, other = await world.org("one", "ann"), await world.org("other", "ann")
    await world.switches.off(one, "provider", "mock", "no contract", ann)
    assert await world.switches.list(other) == []
    with pytest.raises(NotFound):
        await world.switches.on(other, "provider", "mock")
    assert len(await world.switches.list(one)) == 1


@pytest.mark.parametrize("reason", ["", "  ", "a\nb", "a\x00", "x" * 201])
async def test_a_reason_is_one_readable_line(world: World, reason: str) -> None:
    ann = (await world.user("ann")).user_id
    org_id = await world.org("acme", "ann")
    with pytest.raises(InvalidRequest) as refused:
        await world.switches.off(org_id, "provider", "mock", reason, ann)
    assert refused.value.param == "reason"
