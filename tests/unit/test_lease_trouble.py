"""A lease while the store is away, or while its answers are lost."""

from __future__ import annotations

import pytest

from tests.workshop.leases import NAME, Shop
from worker.lease import LeaseLost
from worker.stores.protocol import StoreUnavailable


def test_store_that_is_away_is_named_as_it_is(shop: Shop) -> None:
    """Not as a lease that somebody has."""
    shop.store.away = True

    with pytest.raises(StoreUnavailable):
        shop.worker("n1").hold(shop.store, NAME)


def test_lease_outlives_a_store_that_is_away_for_a_while(shop: Shop) -> None:
    """Nobody else reaches it either; only the commit asks for certainty."""
    first = shop.hold(shop.worker("n1"))
    shop.store.away = True
    shop.now += 59
    first.beat()

    first.check()
    first.require()


def test_commit_is_not_tried_where_the_store_gave_no_answer_for_too_long(shop: Shop) -> None:
    """Others may have taken over meanwhile; the request waits until the store is back."""
    first = shop.hold(shop.worker("n1"))
    shop.store.away = True
    shop.now += 60

    with pytest.raises(LeaseLost, match="could not be renewed for 60 s") as caught:
        first.require()

    assert isinstance(caught.value.__cause__, StoreUnavailable)
    shop.store.away = False
    first.require()


def test_lost_answer_to_a_beat_is_no_lost_lease(shop: Shop) -> None:
    """The change went through although the store could not say so; the next beat finds that out."""
    first = shop.hold(shop.worker("n1"))
    shop.store.deaf = True
    first.beat()
    shop.store.deaf = False

    first.require()

    first.release()
    assert shop.record() is None


def test_lost_answer_to_the_taking_costs_no_time(shop: Shop) -> None:
    """The record that is left is our own."""
    worker = shop.worker("n1")
    shop.store.deaf = True
    with pytest.raises(StoreUnavailable):
        worker.hold(shop.store, NAME)
    shop.store.deaf = False

    shop.hold(worker).require()


def test_release_that_fails_is_made_good_by_time(shop: Shop) -> None:
    """It raises nothing: the set is committed or given up already."""
    first, second = shop.hold(shop.worker("n1")), shop.worker("n2")
    shop.store.away = True

    first.release()

    shop.store.away = False
    shop.refused(second)
    shop.now += 60
    shop.hold(second)
