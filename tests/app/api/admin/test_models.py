"""/api/models: every offer, with its exact price."""

import msgspec

from app.api.admin.wire import ModelList
from plugins.contract import Price
from tests.app.api.admin.conftest import Desk


async def test_every_offer_is_listed_with_its_price(desk: Desk) -> None:
    response = await desk.http.get("/api/models")
    assert response.status_code == 200
    lines = msgspec.json.decode(response.content, type=ModelList).data
    assert [(line.model, line.provider, line.status) for line in lines] == [
        ("acme/tiny", "mock", "live"),
        ("acme/gift", "mock", "live"),
    ]
    assert lines[0].price == Price(input=200_000_000, output=600_000_000)
    assert lines[0].context_length == 8192
    assert lines[1].price == Price(free=True)
    assert lines[0].upcoming == []
