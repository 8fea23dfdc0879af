"""The plugins' README: its code runs as it stands there."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from plugins.conformance import CHECKS, Check, Subject, run
from plugins.contract import AdapterError, FailureKind, InferenceCall, ModelEntry, Price
from plugins.drop_in import run_file
from tests.plugins.acme import BLOCKS, KEY, README, SOURCE, PlayedAcme
from tests.plugins.conftest import make_call, make_toolbox

ENTRY = ModelEntry(id="acme/big", upstream_id="big-1", price=Price(per_request=1))


def call(stream: bool = False, **given: Any) -> InferenceCall:
    order = make_call(stream, api_key=KEY)
    return msgspec.structs.replace(order, **{"upstream_id": "big-1", **given})


def test_the_rules_as_tests_are_python() -> None:
    assert len(BLOCKS) == 3
    compile(BLOCKS[2], "README.md", "exec")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_its_http_provider_conforms(check: Check, tmp_path: Path) -> None:
    file = tmp_path / "acme.py"
    file.write_text(SOURCE)
    plugin = run_file(file)
    toolbox = msgspec.structs.replace(make_toolbox("acme"), models=(ENTRY,))
    async with PlayedAcme() as played:
        adapter = plugin.build(plugin.settings(base_url=played.origin), toolbox)
        await adapter.start()
        try:
            await check(
                Subject(
                    adapter=adapter,
                    call=call,
                    refused=call(upstream_id="other"),
                    models=toolbox.models,
                    keys_seen=lambda: [str(asked.headers) for asked in played.asked],
                    is_providers=played.is_ours,
                )
            )
            with pytest.raises(AdapterError) as refused:
                await run(adapter, call(api_key="wrong-key-123"))
            assert refused.value.kind is FailureKind.AUTH
        finally:
            await adapter.close()


@pytest.mark.parametrize("body", [b"<html>", b'{"id": "x"}', b'{"id":1}', b"\xff"])
async def test_its_http_provider_survives_garbage(body: bytes, tmp_path: Path) -> None:
    file = tmp_path / "acme.py"
    file.write_text(SOURCE)
    plugin = run_file(file)

    class Garbage(PlayedAcme):
        async def _answer(self, asked: Any, reply: Any) -> None:
            await reply.answer(200, body)

    async with Garbage() as played:
        adapter = plugin.build(plugin.settings(base_url=played.origin), make_toolbox())
        await adapter.start()
        with pytest.raises(AdapterError) as failed:
            await run(adapter, call())
        assert failed.value.kind is FailureKind.PROTOCOL
        await adapter.close()


def test_it_names_every_file_of_the_kit_that_there_is() -> None:
    for name in ("contract.py", "tasks.py", "conformance.py", "conformance_tasks.py", "builtin.py"):
        assert f"]({name})" in README
