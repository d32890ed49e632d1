"""On whose behalf a request runs: who asks, how long they wait, and what is written down about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hexad.server.auth import Client
from hexad.server.log import Record
from hexad.types import RequestOutput


@dataclass(frozen=True, slots=True)
class Caller:
    request_id: str
    """Unique: the engine's and the answer's ids are made of it. What the client calls its request is in the record."""
    client: Client
    deadline: float | None
    """On the clock of `time.monotonic`; None: none."""
    record: Record

    def options(self, priority: int, cache_salt: str) -> dict[str, Any]:
        """What the engine is told beside the prompt. Raises Forbidden for a priority that the client may not have."""
        self.client.check_priority(priority)
        return {
            "priority": priority,
            "cache_salt": self.client.salt(cache_salt),
            "client": self.client.name,
            "deadline": self.deadline,
        }

    def note(self, output: RequestOutput, ttft_s: float | None) -> None:
        """One prompt of the request has ended, however it did."""
        record = self.record
        record.prompt_tokens += len(output.prompt_token_ids)
        record.cached_tokens += output.num_cached_tokens
        record.completion_tokens += sum(len(answer.token_ids) for answer in output.outputs)
        record.finish_reasons += [answer.finish_reason or "abort" for answer in output.outputs]
        for name, value in (("queue_s", output.queue_s), ("ttft_s", ttft_s)):
            known = getattr(record, name)
            if value is not None and (known is None or value < known):
                setattr(record, name, value)
