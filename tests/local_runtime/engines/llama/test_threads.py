"""The number of threads follows the machine's load. Steps are made up: cost by thread count."""

from local_runtime.engines.llama.threads import ThreadTuner, candidates

STEP_NS = 10_000_000
QUIET: dict[int, float] = {1: 14.0, 2: 9.0}
BUSY: dict[int, float] = {1: 16.0, 2: 150.0}


def run(
    tuner: ThreadTuner, cost_of: dict[int, float], steps: int, start: int = 0
) -> tuple[float, list[int]]:
    """Total cost, and the thread count of each step."""
    total, used = 0.0, []
    for number in range(start, start + steps):
        threads = tuner.threads
        used.append(threads)
        total += cost_of[threads]
        tuner.observe("output", cost_of[threads], number * STEP_NS)
    return total, used


def test_candidates() -> None:
    assert candidates(1) == [1]
    assert candidates(2) == [1, 2]
    assert candidates(8) == [4, 7, 8]


def test_a_quiet_machine_keeps_all_cores() -> None:
    tuner = ThreadTuner([1, 2])
    total, used = run(tuner, QUIET, 2000)
    assert tuner.settled == 2
    assert total < 1.02 * 2000 * QUIET[2]
    assert 1 in used  # it looks now and then


def test_a_busy_machine_gets_fewer_threads_within_a_few_steps() -> None:
    tuner = ThreadTuner([1, 2])
    run(tuner, QUIET, 500)
    total, used = run(tuner, BUSY, 1000, start=500)
    assert tuner.settled == 1
    assert used.index(1) < 10
    assert total < 1.3 * 1000 * BUSY[1]


def test_and_all_of_them_again_once_it_is_quiet() -> None:
    tuner = ThreadTuner([1, 2])
    run(tuner, BUSY, 1000)
    run(tuner, QUIET, 1000, start=1000)
    assert tuner.settled == 2


def test_a_fixed_number_stays() -> None:
    tuner = ThreadTuner([3])
    run(tuner, {3: 1.0}, 100)
    assert tuner.threads == 3


def test_steps_of_different_kinds_are_not_compared() -> None:
    tuner = ThreadTuner([1, 2])

    for number in range(1000):
        tuner.observe(
            "output" if number % 2 else "prompt", 1.0 if number % 2 else 100.0, number * STEP_NS
        )
        assert tuner.threads == 2
