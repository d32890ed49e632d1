"""Stop strings against the plain definition: look at the text after every character."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from hexad.text.stop import StopMatcher

LETTERS = st.text("ab", min_size=1, max_size=9)
STOPS = st.lists(LETTERS, min_size=1, max_size=4)
PIECES = st.lists(st.text("ab", max_size=8), max_size=10)
OFTEN = settings(max_examples=600)


def first_stop(text: str, stops: list[str]) -> tuple[int, str] | None:
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return end, max(complete, key=len)
    return None


@given(STOPS, PIECES, st.booleans())
@example(["aab"], ["a", "a", "a", "b"], False)
@example(["bca", "ca"], ["bc", "a"], False)
@example(["aabaaac"], ["aabaaab", "aaac"], False)
@OFTEN
def test_the_stop_that_is_complete_first_ends_the_text(stops: list[str], pieces: list[str], include: bool) -> None:
    matcher = StopMatcher(stops, include)
    emitted, stopped = "", None
    for piece in pieces:
        text, stopped = matcher.push(piece)
        emitted += text
        if stopped is not None:
            break
    else:
        emitted += matcher.flush()
    whole = "".join(pieces)
    expected = first_stop(whole, stops)
    if expected is None:
        assert (emitted, stopped) == (whole, None)
    else:
        end, stop = expected
        assert (emitted, stopped) == (whole[: end if include else end - len(stop)], stop)


@given(STOPS, PIECES)
@OFTEN
def test_only_what_could_become_a_stop_is_held_back(stops: list[str], pieces: list[str]) -> None:
    matcher = StopMatcher(stops)
    whole, emitted = "", ""
    for piece in pieces:
        whole += piece
        text, stopped = matcher.push(piece)
        emitted += text
        if stopped is not None:
            return
        prefixes = {stop[:length] for stop in stops for length in range(len(stop))}
        longest = max(len(prefix) for prefix in prefixes if whole.endswith(prefix))
        assert whole[len(emitted) :] == whole[len(whole) - longest :]


def test_a_long_stop_costs_linear_time() -> None:
    stop = "a" * 20_000 + "b"
    matcher = StopMatcher([stop])
    emitted = "".join(matcher.push("a" * 10)[0] for _ in range(10_000))
    assert len(emitted) == 80_000
    assert matcher.push("b") == ("", stop)


def test_without_stops_nothing_is_held_back() -> None:
    matcher = StopMatcher([])
    assert matcher.push("abc") == ("abc", None)
    assert matcher.flush() == ""
