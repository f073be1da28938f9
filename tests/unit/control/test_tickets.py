"""Is a ticket good for one use, for a short while, and for nobody who guesses?"""

from __future__ import annotations

from aiom4b.control.tickets import SECONDS, Tickets


class Watch:
    seconds = 5.0

    def __call__(self):
        return self.seconds


def test_a_ticket_is_good_once():
    tickets = Tickets(Watch())
    one, other = tickets.issue(), tickets.issue()
    assert one != other
    assert len(one) >= 40
    assert tickets.redeem(one)
    assert not tickets.redeem(one)
    assert not tickets.redeem("")
    assert tickets.redeem(other)


def test_a_ticket_is_void_after_its_time():
    watch = Watch()
    tickets = Tickets(watch)
    one, other = tickets.issue(), tickets.issue()
    watch.seconds += SECONDS - 0.1
    assert tickets.redeem(one)
    watch.seconds += 0.2
    assert not tickets.redeem(other)


def test_tickets_that_nobody_uses_do_not_pile_up():
    tickets = Tickets(Watch())
    issued = [tickets.issue() for _ in range(1000)]
    assert len(tickets._until) == 256
    assert tickets.redeem(issued[-1])
    assert not tickets.redeem(issued[0])
