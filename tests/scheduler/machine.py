"""What may happen to a scheduler, in any order: the rules of a hypothesis state machine."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from hexad.errors import BadRequest
from hexad.scheduler.scheduler import SchedulerConfig

from .world import EOS, STOP, World, make_request

MAX_LIVE = 10
CONFIGS = st.builds(
    SchedulerConfig,
    num_pages=st.integers(4, 9),
    max_num_seqs=st.sampled_from([4, 3, 5, 2, 1]),
    max_num_batched_tokens=st.sampled_from([6, 5, 4, 3, 2, 1]),
    max_model_len=st.integers(8, 14),
    prefix_caching=st.sampled_from([True, True, True, False]),
    page_size=st.integers(1, 3),
)
PROMPTS = st.one_of(
    st.integers(1, 8).map(lambda size: [0, 1, 0, 0, 1, 0, 1, 1][:size]),
    st.lists(st.integers(0, 1), min_size=1, max_size=6),
)
OPTIONS = st.fixed_dictionaries(
    {
        "max_tokens": st.integers(1, 8),
        "n": st.sampled_from([1, 1, 1, 2, 3]),
        "priority": st.sampled_from([0, 0, 1]),
        "client": st.sampled_from(["", "", "a", "b"]),
        "cache_salt": st.sampled_from(["", "", "", "pepper"]),
        "prompt_logprobs": st.sampled_from([None, None, None, 0]),
        "min_tokens": st.sampled_from([0, 0, 1]),
        "ignore_eos": st.sampled_from([True, True, False]),
        "stop_token_ids": st.sampled_from([[], [], [STOP]]),
        "grammar": st.sampled_from(["", "", "", "some"]),
    }
)
IDS = st.integers(0, 30)


class SchedulerMachine(RuleBasedStateMachine):
    """Tiny pools, pages and budgets, so that everything collides."""

    @initialize(config=CONFIGS)
    def start(self, config: SchedulerConfig) -> None:
        self.world = World(config)
        self.count = 0

    @rule(prompts=st.lists(PROMPTS, min_size=1, max_size=3), options=OPTIONS)
    def add(self, prompts: list[list[int]], options: dict[str, object]) -> None:
        for prompt in prompts:
            self._add(prompt, options)

    def _add(self, prompt: list[int], options: dict[str, object]) -> None:
        live = sum(not stream.ends for stream in self.world.streams.values())
        if live >= MAX_LIVE:
            return
        request = make_request(f"r{self.count}", prompt, eos_token_ids=[EOS], **options)  # type: ignore[arg-type]
        self.count += 1
        try:
            self.world.add(request)
        except BadRequest:
            fits = len(prompt) + (request.params.max_tokens or 0) <= self._most_tokens()
            assert not fits or request.params.n > self.world.config.max_num_seqs

    def _most_tokens(self) -> int:
        config = self.world.config
        return min(config.max_model_len, config.num_pages * config.page_size)

    def _resume(self, index: int) -> None:
        """A stream that was cut off goes on under another id, from the tokens it had."""
        cut = [
            (key, stream)
            for key, stream in self.world.streams.items()
            if stream.ends and stream.ends[0].finish_reason == "abort" and key[0][0] == "r"
        ]
        if not cut:
            return
        (name, choice), stream = cut[index % len(cut)]
        old, params = stream.request, stream.request.params
        fields = {field: getattr(params, field) for field in ("min_tokens", "ignore_eos", "stop_token_ids")}
        request = make_request(
            f"again-{self.count}-{name}",
            old.prompt_token_ids,
            params.max_tokens or 0,
            eos_token_ids=old.eos_token_ids,
            cache_salt=old.cache_salt,
            grammar=old.grammar,
            priority=old.priority,
            client=old.client,
            choice=choice,
            generated=old.generated + stream.tokens,
            **fields,
        )
        self.count += 1
        self.world.add(request)

    @rule(steps=st.integers(1, 6))
    def go_on(self, steps: int) -> None:
        self.run(steps)

    @rule(steps=st.integers(1, 6))
    def run(self, steps: int) -> None:
        if self.world.plan is not None:
            self.world.finish()
        for _ in range(steps):
            self.world.step()

    @precondition(lambda self: self.world.plan is None)
    @rule()
    def begin_step(self) -> None:
        self.world.begin()

    @precondition(lambda self: self.world.plan is not None)
    @rule(victim=IDS, how=st.sampled_from(["broken", "unsampled"]))
    def fail(self, victim: int, how: str) -> None:
        plan = self.world.plan
        assert plan is not None
        keys = [sample.key for chunk in plan.chunks for sample in (chunk.sequence, *chunk.samples)]
        chosen = [keys[victim % len(keys)]]
        if how == "broken":
            self.world.finish(broken=chosen)
        else:
            self.world.finish(unsampled=chosen)

    @precondition(lambda self: self.world.streams)
    @rule(
        index=IDS,
        what=st.sampled_from(["abort", "abort", "abort choice", "abort unknown", "reset", "resume", "resume"]),
    )
    def interrupt(self, index: int, what: str) -> None:
        """Any request or choice, live or finished; also while a step is in flight."""
        keys = list(self.world.streams)
        name, choice = keys[index % len(keys)]
        if what == "abort":
            self.world.abort(name)
        elif what == "abort choice":
            self.world.abort(name, choice)
        elif what == "abort unknown":
            self.world.abort("unknown")
        elif what == "reset":
            self.world.reset_prefix_cache()
        else:
            self._resume(index)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.drain()
