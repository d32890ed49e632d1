"""Clients that wait get fair shares, whatever each of them has queued (start-time fair queueing, Theorem 1)."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from hexad.scheduler.scheduler import Scheduler, SchedulerConfig
from hexad.types import Request

from .world import World, make_request

QUEUED = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 6), st.integers(1, 6)), min_size=2, max_size=24)


def one_seat() -> World:
    return World(SchedulerConfig(16, 1, 16, 32, True, 4))


def served(world: World) -> list[Request]:
    """Requests in the order in which the only seat was theirs."""
    order: list[Request] = []
    while world.scheduler.has_work:
        world.step()
        for sequence in world.scheduler.running:
            if sequence.request not in order:
                order.append(sequence.request)
        for key, stream in world.streams.items():
            if stream.ends and stream.request not in order:
                assert key[1] == 0
                order.append(stream.request)
    return order


def cost(request: Request) -> int:
    return len(request.prompt_token_ids) + (request.params.max_tokens or 0)


@given(queued=QUEUED)
@settings(max_examples=60)
def test_two_clients_who_wait_are_never_further_apart_than_a_request_of_each(
    queued: list[tuple[str, int, int]],
) -> None:
    world = one_seat()
    for index, (client, prompt, new) in enumerate(queued):
        world.add(make_request(f"r{index}", [0] * prompt, new, client=client, ignore_eos=True))
    most = {c: max((p + n for name, p, n in queued if name == c), default=0) for c in "abc"}
    left = Counter(client for client, _, _ in queued)
    work = dict.fromkeys("abc", 0)
    for request in served(world):
        for one, other in ("ab", "bc", "ac"):
            if left[one] and left[other]:
                assert abs(work[one] - work[other]) <= most[one] + most[other]
        work[request.client] += cost(request)
        left[request.client] -= 1


def test_a_thousand_requests_of_one_do_not_hold_up_one_of_another() -> None:
    world = World(SchedulerConfig(64, 4, 16, 32, True, 4))
    for index in range(1000):
        world.scheduler.add(make_request(f"flood {index}", [0, 1], 2, client="flood"))
    for _ in range(5):
        world.scheduler.commit(world.scheduler.next_plan(), world.model.run(world.scheduler.in_flight))  # type: ignore[arg-type]
    world.scheduler.add(make_request("one", [1, 1], 2, client="other"))
    assert world.scheduler.waiting[0].key == ("one", 0)


def test_a_newcomer_has_no_credit_for_the_time_before_it_came() -> None:
    world = one_seat()
    for index in range(20):
        world.add(make_request(f"old {index}", [0], 4, client="old", ignore_eos=True))
    while not world.streams["old 9", 0].ends:
        world.step()
    for index in range(20):
        world.add(make_request(f"new {index}", [0], 4, client="new", ignore_eos=True))
    done = [stream.request for stream in world.streams.values() if stream.ends]
    later = [request.client for request in served(world) if request not in done]
    for end in range(1, 15):
        assert abs(later[:end].count("new") - later[:end].count("old")) <= 2, later


def test_what_left_unserved_does_not_count() -> None:
    scheduler = Scheduler(SchedulerConfig(16, 1, 16, 32, True, 4))
    scheduler.add(make_request("running", [0], 8, client="a"))
    scheduler.next_plan()
    for index in range(10):
        scheduler.add(make_request(f"gone {index}", [0], 8, client="b"))
    for index in range(10):
        scheduler.abort(f"gone {index}")
    scheduler.add(make_request("next a", [0], 8, client="a"))
    scheduler.add(make_request("next b", [0], 8, client="b"))
    assert [sequence.key[0] for sequence in scheduler.waiting] == ["next b", "next a"]


def test_all_are_equal_again_after_a_rest() -> None:
    world = one_seat()
    for index in range(5):
        world.add(make_request(f"r{index}", [0], 4, client="a"))
    world.drain()
    for name in ("first", "second"):
        world.add(make_request(name, [0], 4, client="a" if name == "first" else "b"))
    assert [sequence.key[0] for sequence in world.scheduler.waiting] == ["first", "second"]
    assert world.scheduler.waiting[1].tag == 0


def test_priority_goes_before_fairness() -> None:
    world = one_seat()
    world.add(make_request("running", [0], 4, client="a"))
    world.step()
    world.add(make_request("fresh", [0], 4, client="b"))
    world.add(make_request("urgent", [0], 4, client="a", priority=-1))
    assert [sequence.key[0] for sequence in world.scheduler.waiting] == ["urgent", "fresh"]
