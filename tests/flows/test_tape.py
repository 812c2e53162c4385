"""Reading ahead changes neither what is read nor its order, and gives up when nobody listens."""

from __future__ import annotations

import threading

import pytest

from mmlab.core.errors import LakeError
from mmlab.flows.tape import AHEAD, read_ahead


@pytest.mark.parametrize("n", [0, 1, AHEAD, 50])
def test_all_comes_once_and_in_order(n):
    assert list(read_ahead(iter(range(n)))) == list(range(n))


def test_the_next_few_are_made_while_one_is_used_and_no_more():
    """The maker runs on in another thread, AHEAD items in front of who takes them."""
    made, enough = [], threading.Event()

    def numbers():
        for i in range(50):
            made.append(i)
            if i == AHEAD:
                enough.set()
            yield i

    taken = read_ahead(numbers())
    assert next(taken) == 0
    assert enough.wait(10)
    assert len(made) <= AHEAD + 1
    taken.close()
    assert len(made) <= AHEAD + 2


def test_a_fault_comes_where_the_item_would_have_come():
    """After all that was read before it; the thread is gone then."""

    def torn():
        yield from range(3)
        raise LakeError("torn", remedy="import the day again")

    taken = read_ahead(torn())
    assert [next(taken) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LakeError, match="torn"):
        next(taken)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPool")]
