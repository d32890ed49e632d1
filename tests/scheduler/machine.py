"""What may happen to a scheduler, in any order: the rules of a hypothesis state machine."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hexad.errors import BadRequest
from hexad.scheduler.scheduler import SchedulerConfig

from .world import EOS, STOP, World, make_request

MAX_LIVE = 10
CONFIGS = st.builds(
    SchedulerConfig,
    num_pages=st.integers(4, 9),
    max_num_seqs=st.integers(1, 5),
    max_num_batched_tokens=st.integers(1, 6),
    max_model_len=st.integers(6, 14),
    prefix_caching=st.sampled_from([True, True, True, False]),
    page_size=st.integers(1, 3),
)
PROMPTS = st.lists(st.integers(0, 1), min_size=1, max_size=9)
OPTIONS = st.fixed_dictionaries(
    {
        "max_tokens": st.integers(1, 6),
        "n": st.sampled_from([1, 1, 1, 2, 3]),
        "priority": st.sampled_from([0, 0, 1]),
        "cache_salt": st.sampled_from(["", "", "", "pepper"]),
        "prompt_logprobs": st.sampled_from([None, None, None, 0]),
        "min_tokens": st.sampled_from([0, 0, 1]),
        "ignore_eos": st.booleans(),
        "stop_token_ids": st.sampled_from([[], [STOP]]),
    }
)
IDS = st.integers(0, 30)


class SchedulerMachine(RuleBasedStateMachine):
    """Tiny pools, pages and budgets, so that everything collides."""

    @initialize(config=CONFIGS)
    def start(self, config: SchedulerConfig) -> None:
        self.world = World(config)
        self.count = 0

    @rule(prompt=PROMPTS, options=OPTIONS)
    def add(self, prompt: list[int], options: dict[str, object]) -> None:
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

    @rule(index=IDS)
    def resume(self, index: int) -> None:
        """A stream that was cut off goes on under another id, from the tokens it had."""
        cut = [
            (key, stream)
            for key, stream in self.world.streams.items()
            if stream.ends and stream.ends[0].finish_reason == "abort" and key[0][0] == "r"
        ]
        if not cut or self.world.plan is None and index % 2:
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
            priority=old.priority,
            choice=choice,
            generated=old.generated + stream.tokens,
            **fields,
        )
        self.count += 1
        self.world.add(request)

    @rule(steps=st.integers(1, 4))
    def run(self, steps: int) -> None:
        if self.world.plan is not None:
            self.world.finish()
        for _ in range(steps):
            self.world.step()
            self.world.check()

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

    @rule(index=IDS)
    def abort(self, index: int) -> None:
        """Any request: live, finished or unknown."""
        names = [*dict.fromkeys(name for name, _ in self.world.streams), "unknown"]
        self.world.abort(names[index % len(names)])

    @precondition(lambda self: self.world.streams)
    @rule(index=IDS)
    def abort_choice(self, index: int) -> None:
        keys = list(self.world.streams)
        self.world.abort(*keys[index % len(keys)])

    @rule()
    def reset_prefix_cache(self) -> None:
        self.world.scheduler.reset_prefix_cache()

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.drain()
