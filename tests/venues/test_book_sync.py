"""Each numbered rule of the venues' book procedures, and that the table leaves no case open."""

from __future__ import annotations

from dataclasses import dataclass

from mmlab.venues import book_sync
from mmlab.venues.book_sync import SPOT, TRANSITIONS, USDM, Action, BookSync, Condition, Rules, State


@dataclass
class Update:
    first_id: int
    last_id: int
    prev_id: int | None = None


def sync(rules: Rules, *buffered: Update) -> BookSync[Update]:
    """A sync that has seen some updates, and no snapshot."""
    made: BookSync[Update] = BookSync(rules)
    for update in buffered:
        assert made.on_update(update).action is Action.BUFFER
    return made


def synced(rules: Rules, book_id: int) -> BookSync[Update]:
    """A sync whose book stands at `book_id`."""
    made: BookSync[Update] = BookSync(rules)
    made.on_snapshot(book_id - 1)
    assert made.on_update(Update(book_id - 1, book_id, book_id - 1)).action is Action.SYNC
    return made


def test_every_state_has_an_answer_to_every_condition_that_can_arise():
    """Without a book nothing can be placed, and with one everything is."""
    unplaced = {Condition.UPDATE_UNPLACED, Condition.SNAPSHOT_NEWER}
    for state in State:
        possible = unplaced if state is State.NO_SNAPSHOT else set(Condition) - {Condition.UPDATE_UNPLACED}
        assert {condition for s, condition in TRANSITIONS if s is state} == possible


def test_rule_2_spot_updates_are_buffered_until_a_snapshot_is_there():
    made = sync(SPOT, Update(1, 2), Update(3, 4))
    assert [u.first_id for u in made.buffer] == [1, 3]
    assert made.state is State.NO_SNAPSHOT


def test_rule_4_spot_a_snapshot_older_than_the_buffer_is_refused_and_the_buffer_stays():
    made = sync(SPOT, Update(10, 12), Update(13, 15))
    assert made.on_snapshot(8).action is Action.REFUSE
    assert [u.first_id for u in made.buffer] == [10, 13]
    step = made.on_snapshot(11)
    assert step.action is Action.SYNC
    assert [u.first_id for u in step.updates] == [10, 13]


def test_rule_4_spot_a_snapshot_that_ends_just_before_the_buffer_is_taken():
    assert sync(SPOT, Update(10, 12)).on_snapshot(9).action is Action.SYNC


def test_rule_5_spot_updates_that_the_snapshot_holds_are_dropped():
    step = sync(SPOT, Update(1, 4), Update(5, 10), Update(11, 12)).on_snapshot(10)
    assert [u.first_id for u in step.updates] == [11]
    assert step.action is Action.SYNC


def test_rule_5_spot_the_update_that_straddles_the_snapshot_is_applied():
    step = sync(SPOT, Update(189, 202), Update(203, 207), Update(208, 224)).on_snapshot(218)
    assert [(u.first_id, u.last_id) for u in step.updates] == [(208, 224)]


def test_rule_5_spot_a_snapshot_waits_for_an_update_that_joins():
    made = sync(SPOT, Update(1, 4))
    assert made.on_snapshot(10).action is Action.LOAD
    assert made.on_update(Update(5, 10)).action is Action.IGNORE
    assert made.state is State.SNAPSHOT_WAITING
    step = made.on_update(Update(11, 13))
    assert (step.action, len(step.updates), made.book_id) == (Action.SYNC, 1, 13)


def test_rule_4_spot_a_waiting_snapshot_is_dropped_when_the_stream_is_past_it():
    made = sync(SPOT)
    made.on_snapshot(10)
    step = made.on_update(Update(12, 13))
    assert (step.action, step.missing, made.state) == (Action.REFUSE, (11, 11), State.NO_SNAPSHOT)
    assert [u.first_id for u in made.buffer] == [12]


def test_rule_6_spot_the_books_id_is_the_snapshots():
    made = sync(SPOT)
    made.on_snapshot(10)
    assert made.book_id == 10


def test_rule_7_spot_contiguous_and_overlapping_updates_are_applied():
    for first in (11, 10, 5):
        made = synced(SPOT, 10)
        assert made.on_update(Update(first, 12)).action is Action.APPLY
        assert made.book_id == 12


def test_rule_7_spot_old_updates_and_repetitions_are_ignored():
    made = synced(SPOT, 10)
    for last in (9, 10):
        assert made.on_update(Update(5, last)).action is Action.IGNORE
    assert made.book_id == 10


def test_rule_7_spot_a_hole_throws_the_book_away_and_keeps_the_update_that_shows_it():
    made = synced(SPOT, 10)
    step = made.on_update(Update(14, 16))
    assert (step.action, step.missing, step.updates) == (Action.RESYNC, (11, 13), ())
    assert (made.state, made.book_id) == (State.NO_SNAPSHOT, None)
    assert [u.first_id for u in made.buffer] == [14]
    assert made.on_snapshot(15).action is Action.SYNC


def test_rule_7_spot_a_hole_inside_the_buffer_asks_for_another_snapshot():
    made = sync(SPOT, Update(1, 4), Update(7, 9), Update(10, 12))
    step = made.on_snapshot(3)
    assert (step.action, step.missing) == (Action.RESYNC, (5, 6))
    assert [u.first_id for u in made.buffer] == [7, 10]
    assert made.on_snapshot(7).action is Action.SYNC


def test_rule_2_usdm_updates_are_buffered_until_a_snapshot_is_there():
    assert len(sync(USDM, Update(1, 2, 0), Update(5, 9, 2)).buffer) == 2


def test_rule_4_usdm_updates_before_the_snapshot_are_dropped():
    step = sync(USDM, Update(1, 9, 0), Update(20, 30, 9)).on_snapshot(25)
    assert [u.first_id for u in step.updates] == [20]


def test_rule_5_usdm_the_first_update_holds_the_snapshots_id():
    for book_id in (20, 25, 30):
        step = sync(USDM, Update(20, 30, 9)).on_snapshot(book_id)
        assert (step.action, len(step.updates)) == (Action.SYNC, 1)


def test_rule_5_usdm_an_update_that_names_the_snapshot_as_the_one_before_joins_too():
    assert sync(USDM, Update(20, 30, 9)).on_snapshot(9).action is Action.SYNC


def test_rule_5_usdm_a_snapshot_older_than_the_buffer_is_refused_and_the_buffer_stays():
    made = sync(USDM, Update(20, 30, 9))
    assert made.on_snapshot(19).action is Action.REFUSE
    assert len(made.buffer) == 1
    assert made.on_snapshot(21).action is Action.SYNC


def test_rule_6_usdm_ids_need_not_be_dense_but_pu_must_be_the_u_before():
    made = synced(USDM, 10)
    assert made.on_update(Update(500, 600, 10)).action is Action.APPLY
    step = made.on_update(Update(700, 800, 650))
    assert (step.action, step.missing) == (Action.RESYNC, (601, 650))
    assert [u.first_id for u in made.buffer] == [700]


def test_rule_6_usdm_a_repetition_is_ignored():
    made = synced(USDM, 10)
    assert made.on_update(Update(5, 10, 4)).action is Action.IGNORE
    assert made.on_update(Update(11, 12, 10)).action is Action.APPLY


def test_a_snapshot_does_not_disturb_a_book_in_sync():
    for rules in (SPOT, USDM):
        made = synced(rules, 10)
        for last_id in (5, 10, 500):
            assert made.on_snapshot(last_id).action is Action.IGNORE
        assert (made.state, made.book_id) == (State.SYNCED, 10)


def test_an_older_snapshot_does_not_replace_a_waiting_one_but_a_newer_one_does():
    made = sync(SPOT)
    made.on_snapshot(10)
    assert made.on_snapshot(9).action is Action.IGNORE
    assert made.on_snapshot(12).action is Action.LOAD
    assert made.on_update(Update(11, 13)).action is Action.SYNC


def test_after_a_reset_everything_starts_over_with_the_update_that_was_kept():
    made = synced(SPOT, 10)
    made.reset(keep=Update(11, 12))
    assert (made.state, made.book_id, len(made.buffer)) == (State.NO_SNAPSHOT, None, 1)
    assert made.on_snapshot(11).action is Action.SYNC
    made.reset()
    assert len(made.buffer) == 0


def test_the_buffer_is_bounded_and_forgets_its_oldest(monkeypatch):
    monkeypatch.setattr(book_sync, "BUFFER", 2)
    made = sync(SPOT, Update(1, 1), Update(2, 2), Update(3, 3))
    assert [u.first_id for u in made.buffer] == [2, 3]
    assert made.on_snapshot(0).action is Action.REFUSE
