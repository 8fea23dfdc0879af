"""When a host hears of what its engine's steps made: beginnings and ends at once, the rest soon."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_runtime.engines.contract import Admitted, EngineEvent, EngineInfo, Finished, Piece
from local_runtime.engines.fake import FakeEngine
from local_runtime.placement import drive
from local_runtime.placement.drive import TELL_NS_MAX, TELL_NS_MAX_BESIDE_FREE_CORES, tell_ns_max
from local_runtime.placement.frames import FromEngine, Stepped
from plugins.contract import Usage

MS = 1_000_000


class Clock:
    """Stands in for the module ``time`` in the room under test."""

    now_ns = 10**12

    def monotonic_ns(self) -> int:
        return self.now_ns


class Busy(FakeEngine):
    """An engine with more to do, or with nothing left."""

    works = True

    def load_nothing(self) -> None:
        self._work, self._outbox = [], []

    @property
    def has_work(self) -> bool:
        return self.works


class Heard:
    """An outlet, what it told and when. Each step of ``run`` takes as long as it says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ns_max: int = 40 * MS) -> None:
        self.clock = Clock()
        monkeypatch.setattr(drive, "time", self.clock)
        self.engine = Busy()
        self.engine.load_nothing()
        self.tells: list[tuple[int, list[EngineEvent]]] = []
        self.outlet = drive._Outlet(self.engine, self._hear, ns_max)

    def _hear(self, message: FromEngine) -> None:
        assert isinstance(message, Stepped)
        self.tells.append((self.clock.now_ns, list(message.events)))

    def step(self, took_ns: int, *events: EngineEvent) -> int:
        """How many times it has told by the end of this step."""
        self.clock.now_ns += took_ns
        self.outlet.take(list(events))
        return len(self.tells)


def piece(number: int = 0, reason: str | None = None, request_id: str = "r") -> Piece:
    return Piece(request_id, Usage(), text=str(number), finish_reason=reason)


def test_the_first_and_the_last_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(monkeypatch)
    assert heard.step(MS, Admitted("r", Usage())) == 1
    assert heard.step(MS, piece(1)) == 2
    assert heard.step(MS, piece(2)) == 2
    assert heard.step(MS, piece(1, request_id="s")) == 3  # takes the other's along
    assert heard.step(MS, piece(3), piece(2, request_id="s")) == 3
    assert heard.step(MS, piece(4, "stop"), Finished("r", Usage())) == 4
    assert [len(events) for _, events in heard.tells] == [1, 1, 2, 4]


def test_the_rest_is_told_before_it_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(monkeypatch)
    for number in range(41):
        heard.step(9 * MS, piece(number))
    assert {len(events) for _, events in heard.tells[1:]} == {4}
    slow = Heard(monkeypatch)
    for number in range(10):
        assert slow.step(25 * MS, piece(number)) == number + 1  # two steps would be too long


def test_nothing_is_kept_when_there_is_no_more_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(monkeypatch)
    heard.step(MS, piece(1))
    heard.engine.works = False
    assert heard.step(MS, piece(2)) == 2


@given(
    steps=st.lists(
        st.tuples(st.integers(min_value=1, max_value=60), st.integers(min_value=0, max_value=3)),
        max_size=60,
    )
)
def test_all_of_it_is_told_once_in_order_and_in_time(steps: list[tuple[int, int]]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        heard = Heard(monkeypatch)
        made_ns: dict[str, int] = {}
        number = longest_ns = 0
        for took_ms, count in steps:
            made = [piece(number + each) for each in range(count)]
            longest_ns = max(longest_ns, took_ms * MS)
            number += count
            heard.step(took_ms * MS, *made)
            made_ns |= {event.text: heard.clock.now_ns for event in made}
        heard.engine.works = False
        heard.step(0)
        told = [event for _, events in heard.tells for event in events]
        assert [event.text for event in told if isinstance(event, Piece)] == [
            str(each) for each in range(number)
        ]
        for at_ns, events in heard.tells[:-1]:
            for event in events:
                assert isinstance(event, Piece)
                # A step that takes longer than the one before it was not to be foreseen.
                assert at_ns - made_ns[event.text] <= 40 * MS + longest_ns


def test_less_waits_where_cores_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "usable_cores", lambda: 4)

    def of(threads: int, gpu_layers: int = 0) -> int:
        return tell_ns_max(
            EngineInfo(
                context_length=1, sequences_max=1, threads=threads, load_ms=0, gpu_layers=gpu_layers
            )
        )

    assert of(4) == TELL_NS_MAX
    assert of(3) == of(4, gpu_layers=9) == TELL_NS_MAX_BESIDE_FREE_CORES < TELL_NS_MAX
