from __future__ import annotations

import threading
from copy import deepcopy

import pytest

from hexshards.loading.threads import SharedWork, ordered_map

WAIT_S = 60
"""What ends a test that has failed."""


def in_a_thread(shared, work):
    """What work in a thread gives, waited for as a loader waits for its windows."""
    [result] = ordered_map(lambda _: work(), [0], threads=1, depth=0, result_of=shared.result_of)
    return result


def waited_for(shared):
    """Return to a thread once somebody waits for it."""
    seen = threading.Event()
    shared.begin(seen.set)
    assert seen.wait(WAIT_S)


def test_who_waits_for_a_thread_works_at_the_same_time_and_results_keep_their_order():
    shared, both = SharedWork(), threading.Barrier(2)

    def work(item):
        both.wait(WAIT_S)  # two at a time, or never
        return item

    def window():
        waited_for(shared)
        return shared.map(work, range(8))

    assert in_a_thread(shared, window) == list(range(8))


def test_work_that_was_begun_is_done_where_it_is_asked_for_when_nobody_else_does_it():
    shared = SharedWork()
    begun = shared.begin(divmod, 7, 2)
    assert shared.map(str, range(3)) == ["0", "1", "2"]
    assert begun.result() == begun.result() == (3, 1)


def test_an_item_is_drawn_when_the_one_before_is_done_as_long_as_nobody_waits():
    shared, done = SharedWork(), []

    def items():
        for item in range(5):
            assert done == list(range(item))
            yield item

    shared.map(done.append, items())
    assert done == list(range(5))


@pytest.mark.parametrize("helped", [False, True])
def test_what_an_item_raises_is_raised_in_the_thread_that_maps_and_the_next_map_is_whole(helped):
    shared = SharedWork()

    def window():
        if helped:
            waited_for(shared)
        with pytest.raises(ZeroDivisionError):
            shared.map(lambda item: 1 // item, [1, 2, 0, 3])
        return shared.map(str, range(4))

    assert (in_a_thread(shared, window) if helped else window()) == ["0", "1", "2", "3"]


def test_what_cannot_be_drawn_is_raised_and_the_next_map_is_whole():
    shared = SharedWork()

    def items():
        yield 1
        raise OSError("gone")

    def window():
        waited_for(shared)
        with pytest.raises(OSError, match="gone"):
            shared.map(str, items())
        return shared.map(str, range(4))

    assert in_a_thread(shared, window) == ["0", "1", "2", "3"]


def test_who_is_interrupted_while_it_works_for_another_loses_nothing_of_it():
    shared, main = SharedWork(), threading.current_thread()
    stopped, results = threading.Event(), list[list[int]]()

    def work(item):
        if threading.current_thread() is main and not stopped.is_set():
            stopped.set()
            raise KeyboardInterrupt
        assert stopped.wait(WAIT_S)
        return item

    def window():
        waited_for(shared)
        results.append(shared.map(work, range(6)))

    mapped = ordered_map(lambda _: window(), [0], threads=1, depth=0, result_of=shared.result_of)
    with pytest.raises(KeyboardInterrupt):
        list(mapped)
    assert results == [list(range(6))]


def test_shared_work_that_goes_to_another_process_is_new_there():
    assert deepcopy(SharedWork()).map(str, [1]) == ["1"]
