"""Which calls are recorded, and how the two parts of a call end its span together."""

import asyncio
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from app.tracing.attributes import HTTP_STATUS
from app.tracing.settings import Settings
from app.tracing.tracer import Tracing

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ROUNDS = 2000


def tracing(ratio: float = 1.0, *, trust: bool = False) -> Tracing:
    return Tracing(
        Settings(
            url="http://127.0.0.1:1/v1/traces",
            shown="nowhere",
            headers={},
            service_name="t",
            sample_ratio=ratio,
            trust_callers=trust,
            timeout_s=1,
            flush_s=0,
            queue_spans_max=256,
        )
    )


def parent(flags: str) -> list[tuple[bytes, bytes]]:
    return [(b"traceparent", f"00-{TRACE}-{SPAN}-{flags}".encode())]


def spans(of: Tracing) -> list[ReadableSpan]:
    return list(of.delivery._queue)


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
async def test_the_law_of_sampling(ratio: float, trust: bool) -> None:
    made = tracing(ratio, trust=trust)
    for flags, expected in ((None, ratio), ("00", 0.0), ("01", 1.0 if trust else ratio)):
        headers = [] if flags is None else parent(flags)
        calls = [made.begin("x", headers, {}) for _ in range(ROUNDS)]
        share = sum(call.recorded for call in calls) / ROUNDS
        assert abs(share - expected) <= (0.06 if 0 < expected < 1 else 0)
        if flags is not None:
            assert {call.trace_id for call in calls} == {TRACE}
        else:
            assert len({call.trace_id for call in calls}) == ROUNDS


@settings(max_examples=300)
@given(trace=st.integers(1, (1 << 128) - 1), span=st.integers(1, (1 << 64) - 1))
def test_no_choice_of_ids_makes_a_stranger_recorded(trace: int, span: int) -> None:
    async def recorded() -> bool:
        header = f"00-{trace:032x}-{span:016x}-01".encode()
        return tracing(0.0).begin("x", [(b"traceparent", header)], {}).recorded

    assert asyncio.run(recorded()) is False


@pytest.mark.parametrize("first", ["request", "task"])
async def test_the_later_of_the_two_parts_ends_it(first: str) -> None:
    made = tracing()
    call = made.begin("x", [], {})
    call.begin_task()
    parts: list[Callable[[], None]] = [
        lambda: call.end_request("", {HTTP_STATUS: 200}),
        lambda: call.end_task("client_left", {}),
    ]
    for end in parts if first == "request" else reversed(parts):
        assert spans(made) == []
        end()
    (span,) = spans(made)
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes[HTTP_STATUS] == 200
    assert span.attributes["error.type"] == "client_left"


async def test_a_step_that_raises_fails_by_its_code_and_lets_it_through() -> None:
    made = tracing()
    call = made.begin("x", [], {})
    with pytest.raises(KeyError, match="PLANTED"), call.step("hold"):
        raise KeyError("PLANTED")
    (span,) = spans(made)
    assert span.attributes == {"error.type": "KeyError"}
    assert "PLANTED" not in span.to_json()


async def test_attempts_that_are_left_open_end_with_the_call() -> None:
    made = tracing()
    call = made.begin("x", [], {})
    call.begin_task()
    call.begin_attempt(1, "a", {})
    call.begin_attempt(1, "again", {})  # is under way
    call.begin_attempt(2, "b", {"gen_ai.prompt": "PLANTED"})
    call.end_attempt(2, "", {}, first_token_ns=0)
    call.end_attempt(3, "", {})  # never began
    call.accepted(3)
    call.end_task("shutting_down", {})
    call.end_request("", {})
    said = {span.name: dict(span.attributes or {}).get("error.type") for span in spans(made)}
    assert said == {"b": None, "a": "shutting_down", "x": "shutting_down"}
    assert not any("PLANTED" in span.to_json() for span in spans(made))


async def test_what_is_not_recorded_costs_no_span() -> None:
    made = tracing(0.0)
    call = made.begin("x", [], {})
    call.begin_task()
    with call.step("hold"):
        call.begin_attempt(1, "a", {})
    call.end_attempt(1, "", {})
    call.end_task("", {})
    call.end_request("", {})
    assert spans(made) == []


def test_the_environment_says_nothing_to_it() -> None:
    code = (
        "import asyncio\n"
        "from tests.app.tracing.test_tracer import tracing\n"
        "async def main():\n"
        "    made = tracing()\n"
        "    call = made.begin('x', [], {})\n"
        "    call.end_request('', {})\n"
        "    (span,) = made.delivery._queue\n"
        "    print(span.resource.attributes['service.name'], 'evil' in span.to_json())\n"
        "asyncio.run(main())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={
            "OTEL_SERVICE_NAME": "evil",
            "OTEL_RESOURCE_ATTRIBUTES": "a=evil",
            "OTEL_TRACES_SAMPLER": "always_off",
            "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "0",
            "OTEL_EXPORTER_OTLP_HEADERS": "a=evil",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("t False\n", "")


def test_starting_without_a_collector_imports_none_of_it() -> None:
    code = (
        "import sys, app.boot, app.parts, app.api.server, app.cli.main, app.doctor.examination\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'google'))])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")
