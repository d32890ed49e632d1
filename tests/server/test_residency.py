"""Which models leave: laws that hold for any memory, and the order of use."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hexad.server.residency import Resident, make_room

RESIDENTS = st.lists(
    st.builds(
        Resident,
        size=st.integers(0, 9),
        used=st.integers(0, 9).map(float),
        busy=st.booleans(),
        leaving=st.booleans(),
        fixed=st.booleans(),
    ),
    max_size=7,
)


@given(RESIDENTS, st.integers(0, 20), st.integers(0, 40))
def test_room_is_made_by_those_who_may_leave_and_nobody_leaves_in_vain(
    residents: list[Resident], size: int, budget: int
) -> None:
    free = [each for each in residents if each.leaving or not each.fixed]
    stay = sum(each.size for each in residents) - sum(each.size for each in free)
    chosen = make_room(residents, size, budget)
    if stay + size > budget:
        assert chosen is None
        return
    assert chosen is not None and len(set(chosen)) == len(chosen)
    gone = [residents[index] for index in chosen]
    left = sum(each.size for index, each in enumerate(residents) if index not in chosen)
    assert all(each in free for each in gone)
    assert left + size <= budget
    for each in gone:
        assert left + each.size + size > budget  # without it there is no room


@given(RESIDENTS, st.integers(0, 20), st.integers(0, 40))
def test_equals_leave_in_the_order_of_use_and_the_busy_last(residents: list[Resident], size: int, budget: int) -> None:
    equal = [each._replace(size=3, leaving=False, fixed=False) for each in residents]
    chosen = make_room(equal, size, budget)
    order = sorted(range(len(equal)), key=lambda index: (equal[index].busy, equal[index].used))
    assert chosen is None or [equal[i] for i in sorted(chosen, key=order.index)] == [
        equal[i] for i in order[: len(chosen)]
    ]


def test_what_a_reader_would_expect() -> None:
    old, new, busy = Resident(4, 1.0), Resident(4, 2.0), Resident(8, 0.0, busy=True)
    assert make_room([old, new, busy], 4, 20) == []
    assert make_room([old, new, busy], 4, 16) == [0]
    assert make_room([old, new, busy], 8, 16) == [0, 1]
    assert make_room([old, new, busy], 12, 16) == [0, 2]
    assert make_room([old, new, busy._replace(fixed=True)], 12, 16) is None
    assert make_room([Resident(1, 1.0), Resident(8, 2.0)], 8, 10) == [1]  # the small one would leave in vain
    assert make_room([old._replace(leaving=True), new], 4, 8) == [0]
