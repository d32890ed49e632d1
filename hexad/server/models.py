"""The models that a server has, by the names that clients use: loaded on demand, unloaded to make room.

It knows engines, waiting and time; which model makes room for which is decided in `residency.py`. A LoRA adapter
will be a name of its own, whose entry shares the `Instance` of its base and adds an adapter to the `Service`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hexad.checkpoints.hub import is_local
from hexad.config import Config
from hexad.engine.async_llm import AsyncLLM
from hexad.engine.places import check_places
from hexad.engine.setup import Progress, Resolved, no_progress, resolve_settings
from hexad.errors import ConfigError, DeadlineExceeded, EngineUnavailable, HexadError, NotFound, OutOfMemory
from hexad.placement.memory import MemoryPlan, available_memory, gib
from hexad.placement.sizes import num_parameters
from hexad.server.caller import Caller
from hexad.server.generation import Service, now
from hexad.server.metrics import Metrics
from hexad.server.residency import Resident, make_room
from hexad.types import EngineStats

log = logging.getLogger("hexad.server")

LOAD_TIMEOUT_S = 600.0
"""How long a request waits for its model: for those before it in line, for room, and for the load itself."""
SHUTTING_DOWN = "the server is shutting down; send the request to another one"


class Served(NamedTuple):
    name: str
    config: Config
    pinned: bool = False
    """It never leaves to make room, nor for having been idle."""


class About(NamedTuple):
    """A model as it is now. None: not known before it is downloaded, or does not apply.

    `users`: requests that run on it or wait for it; `size`: bytes of weights; `memory`: bytes held now, with the KV
    cache; `created`, `expires_at`: Unix times, the latter of being unloaded if no request comes; `error`: of the last
    attempt to load it.
    """

    name: str
    model: str
    state: str
    pinned: bool
    users: int
    size: int | None
    memory: int
    parameters: int | None
    dtype: str | None
    max_model_len: int | None
    created: int
    expires_at: float | None
    error: str | None


@dataclass(slots=True, eq=False)
class Entry:
    """A name that clients use. `instance` is where new requests go; `drained` when they are refused."""

    name: str
    config: Config
    pinned: bool
    keep_alive: float | None
    """Seconds without a request after which it is unloaded; None: never."""
    created: int = field(default_factory=now)
    instance: Instance | None = None
    resolved: Resolved | None = None
    error: str | None = None
    drained: bool = False

    @property
    def service(self) -> Service | None:
        return None if self.instance is None or self.instance.leaving is not None else self.instance.service

    @property
    def state(self) -> str:
        if self.instance is None:
            return "failed" if self.error else "unloaded"
        if self.service is None:
            return "loading" if self.instance.leaving is None else "leaving"
        engine = self.service.engine
        return "asleep" if engine.asleep else "paused" if engine.paused else "drained" if self.drained else "loaded"


@dataclass(slots=True, eq=False)
class Instance:
    """One set of weights with its engine: in line to be loaded, loaded, or leaving once its last requests end."""

    entry: Entry
    config: Config
    takes_over: bool = False
    """From the entry's present instance, once it is loaded."""
    loading: asyncio.Task[Service] | None = None
    service: Service | None = None
    leaving: asyncio.Task[None] | None = None
    size: int = 0
    """Planned bytes; 0 while it waits for its turn to be loaded."""
    users: int = 0
    used: float = field(default_factory=time.monotonic)
    expires: asyncio.TimerHandle | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def held(self) -> int:
        """Bytes of memory."""
        return 0 if self.service is not None and (self.service.engine.asleep or self.service.engine.gone) else self.size

    @property
    def stopped(self) -> bool:
        return self.service is not None and (self.service.engine.paused or self.service.engine.asleep)


class Models:
    """Use `async with models.use(name) as service`: for as long as it is open, the model stays loaded."""

    def __init__(self, served: Sequence[Served], *, load_timeout_s: float = LOAD_TIMEOUT_S) -> None:
        """The server's own settings are those of the first. Raises ConfigError for a name that is given twice."""
        self.entries: dict[str, Entry] = {}
        for name, config, pinned in served:
            if name in self.entries:
                raise ConfigError(
                    f"two models would be served as {name!r}; give one of them another name, as in NAME=MODEL",
                    param="model",
                )
            self.entries[name] = Entry(name, config, pinned, config.keep_alive)
        shared = served[0].config
        self.budget = min(shared.model_memory or 2**63, available_memory())
        self.metrics = Metrics(self._stats)
        self._max_waiting, self._waiting = shared.max_queue, Counter[str]()
        self._load_timeout_s = load_timeout_s
        self._living: list[Instance] = []
        self._one_at_a_time = asyncio.Lock()
        self._closing = False

    def find(self, name: str | None) -> Entry:
        """No name means the first model; `demo:latest`, as Ollama's clients call it, means `demo`. Raises NotFound."""
        name = next(iter(self.entries)) if name is None else name
        if (entry := self.entries.get(name) or self.entries.get(name.removesuffix(":latest"))) is None:
            known = ", ".join(map(repr, self.entries))
            raise NotFound(
                f"the model {name[:60]!r} does not exist; this server has {known}",
                param="model",
                code="model_not_found",
            )
        return entry

    @property
    def healthy(self) -> bool:
        """It takes requests, and no engine is dead or being restarted."""
        services = [entry.service for entry in self.entries.values()]
        is_open = not self._closing and not all(entry.drained for entry in self.entries.values())
        return is_open and all(service.engine.healthy for service in services if service is not None)

    def living(self, entry: Entry) -> list[Instance]:
        """Those that serve this name: more than one while one leaves."""
        return [instance for instance in self._living if instance.entry is entry]

    async def about(self, entry: Entry) -> About:
        if entry.resolved is None and is_local(entry.config.model, entry.config.revision):
            with contextlib.suppress(HexadError):
                entry.resolved = await self._resolve(entry.config)
        known, living = entry.resolved, self.living(entry)
        limit = None if known is None else known.scheduler.max_model_len
        timer = None if entry.instance is None else entry.instance.expires
        return About(
            name=entry.name,
            model=entry.config.model,
            state=entry.state,
            pinned=entry.pinned,
            users=sum(each.users for each in living),
            size=None if known is None else known.memory.weights,
            memory=sum(each.held for each in living),
            parameters=None if known is None else num_parameters(known.model),
            dtype=None if known is None else known.precision.linear,
            max_model_len=limit if entry.service is None else entry.service.engine.max_model_len,
            created=entry.created,
            expires_at=None if timer is None else time.time() + timer.when() - asyncio.get_running_loop().time(),
            error=entry.error,
        )

    # Using.

    @contextlib.asynccontextmanager
    async def use(
        self, name: str | None, caller: Caller | None, keep_alive: float | None = None
    ) -> AsyncIterator[Service]:
        """Load the model if it is not, and hold it. `caller`: who waits, and until when. `keep_alive`: seconds that it
        stays after its last use, from now on; below 0 for good; None changes nothing.

        Raises NotFound, Overloaded when too many wait, in all or of this client, DeadlineExceeded, EngineUnavailable
        when it is drained or not loaded in time, and what the load failed with; the next request tries again.
        """
        entry = self.find(name)
        late: HexadError = EngineUnavailable(f"{entry.name} could not be loaded in {self._load_timeout_s:g} s")
        limit, deadline = time.monotonic() + self._load_timeout_s, None if caller is None else caller.deadline
        if deadline is not None and deadline < limit:
            late, limit = DeadlineExceeded(f"the request's time was over before {entry.name} was loaded"), deadline
        while True:
            instance = self._instance(entry)
            self.settle(instance, +1)
            try:
                service = await self._loaded(instance, caller, limit, late)
                break
            except BaseException as error:
                self.settle(instance, -1)
                failed_update = instance.takes_over and entry.instance is not instance
                if not (isinstance(error, HexadError) and failed_update):  # then what was served before is again
                    raise
        if keep_alive is not None:
            entry.keep_alive = keep_alive if keep_alive >= 0 else None
        try:
            yield service
        finally:
            self.settle(instance, -1)

    def _instance(self, entry: Entry) -> Instance:
        """Where a new request goes. Raises EngineUnavailable."""
        if self._closing:
            raise EngineUnavailable(SHUTTING_DOWN)
        if entry.drained:
            raise EngineUnavailable(f"{entry.name} takes no new requests: an administrator has drained it")
        if entry.instance is not None and entry.service is not None and entry.service.engine.gone:
            self.leave(entry.instance)
        if entry.instance is None or entry.instance.leaving is not None:
            entry.instance = self._start(Instance(entry, entry.config))
        return entry.instance

    async def _loaded(self, instance: Instance, caller: Caller | None, limit: float, late: HexadError) -> Service:
        loading = instance.loading
        assert loading is not None
        if not loading.done():
            client, what = "" if caller is None else caller.client.name, "requests wait for models to be loaded"
            check_places(self._waiting, client, self._max_waiting, what, "max_queue allows")
            self._waiting[client] += 1
            try:
                await asyncio.wait({loading}, timeout=limit - time.monotonic())
            finally:
                self._waiting[client] -= 1
        if not loading.done():
            raise late
        if loading.cancelled():
            raise EngineUnavailable(SHUTTING_DOWN)
        return loading.result()

    def settle(self, instance: Instance, change: int = 0) -> None:
        """`change` more use it; what nobody uses goes after `keep_alive`, unless it is stopped or pinned."""
        entry = instance.entry
        instance.users += change
        if instance.expires is not None:
            instance.expires.cancel()
            instance.expires = None
        if instance.users:
            return instance.idle.clear()
        instance.used = time.monotonic()
        instance.idle.set()
        may_leave = instance.service is not None and not (instance.leaving or instance.stopped or entry.pinned)
        if may_leave and entry.keep_alive is not None:
            instance.expires = asyncio.get_running_loop().call_later(entry.keep_alive, self.leave, instance)

    # Loading.

    async def load(self, name: str | None, progress: Progress = no_progress) -> None:
        """Raises what `use` raises."""
        entry = self.find(name)
        entry.drained = False
        if entry.instance is None and not self._closing:
            entry.instance = self._start(Instance(entry, entry.config), progress)
        async with self.use(name, None):
            pass

    async def replace(self, entry: Entry, config: Config) -> bool:
        """Serve `config` under this name from now on; no request is lost, and none sees both.

        What runs ends on what it began with: beside the new engine (True) or, where the memory is not enough for
        both, before it is loaded, while new requests wait (False). Raises what the load failed with; what was served
        before is served then.
        """
        if entry.instance is not None and entry.instance.loading is not None:
            await asyncio.wait({entry.instance.loading})
        old = entry.instance
        if entry.service is None:
            entry.config, entry.resolved = config, None
            return True
        info = entry.service.engine.info
        config = dataclasses.replace(config, kv_memory=info.memory.kv, max_model_len=info.max_model_len)
        fresh = self._start(Instance(entry, config, takes_over=True))
        assert fresh.loading is not None
        await asyncio.shield(fresh.loading)
        return old in self._living

    def _start(self, instance: Instance, progress: Progress = no_progress) -> Instance:
        self._living.append(instance)
        instance.loading = asyncio.create_task(self._load(instance, progress))
        # Whoever still waits raises its error; when nobody does, nobody needs it.
        instance.loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        return instance

    async def _load(self, instance: Instance, progress: Progress) -> Service:
        entry = instance.entry
        try:
            async with self._one_at_a_time:
                config = await self._planned(instance)
                await self._make_room(instance)
                started = time.monotonic()
                engine = await AsyncLLM.start(config, progress)
        except BaseException as error:
            self._living.remove(instance)
            self.settle(instance)
            entry.error = str(error)
            if progress is no_progress and isinstance(error, Exception):
                log.error("%s was not loaded: %s", entry.name, error)
            if entry.instance is instance:
                entry.instance = None
            self.metrics.count(entry.name, "model_load_failures")
            raise
        instance.service = Service(engine, entry.name, self.metrics)
        instance.size = _size(engine.info.memory)
        entry.error = None
        self.metrics.count(entry.name, "model_loads")
        self.metrics.observe(entry.name, "model_load_seconds", time.monotonic() - started)
        if progress is no_progress:  # at the start there is a report
            log.info("%s was loaded in %.1f s", entry.name, time.monotonic() - started)
        if instance.takes_over:
            old, entry.instance, entry.config = entry.instance, instance, instance.config
            if old is not None and old is not instance:
                self.leave(old)
        self.settle(instance)
        return instance.service

    async def _planned(self, instance: Instance) -> Config:
        """Where several models share the memory, with a KV cache that leaves the others their part."""
        known = instance.entry.resolved = await self._resolve(instance.config)
        instance.size = _size(known.memory)
        if len(self.entries) == 1:
            return instance.config
        limit = known.scheduler.max_model_len
        return dataclasses.replace(instance.config, kv_memory=known.memory.kv, max_model_len=limit)

    async def _resolve(self, config: Config) -> Resolved:
        sharers = len(self.entries)
        available = self.budget if sharers > 1 else None
        return await asyncio.to_thread(resolve_settings, config, available=available, sharers=sharers)

    async def _make_room(self, instance: Instance) -> None:
        """Raises OutOfMemory. What it takes over from leaves before only where there is no other room."""
        entry = instance.entry
        kept = entry.instance if instance.takes_over else None
        while True:
            others = [each for each in self._living if each is not instance and each.held]
            held = sum(each.held for each in others)
            room = min(self.budget, held + available_memory())
            leaving = make_room([_resident(each, entry, kept) for each in others], instance.size, room)
            if leaving is None and kept is not None:
                leaving = make_room([_resident(each, entry, None) for each in others], instance.size, room)
                if leaving is not None:
                    entry.instance, kept = instance, None  # new requests wait for what comes
            if leaving is None:
                raise OutOfMemory(
                    f"{entry.name} needs {gib(instance.size)} with its KV cache; of {gib(room)} for models {gib(held)} "
                    "are held by others that cannot leave; raise model_memory, lower kv_memory or unpin a model",
                    param="model",
                )
            if not leaving:
                return
            await asyncio.gather(*[asyncio.shield(self.leave(others[index])) for index in leaving])

    async def wake(self, instance: Instance) -> None:
        """Raises OutOfMemory or EngineUnavailable; it sleeps on then."""
        async with self._one_at_a_time:
            if instance.service is not None and instance.service.engine.asleep:
                await self._make_room(instance)
                await instance.service.engine.wake()

    # Leaving.

    def leave(self, instance: Instance) -> asyncio.Task[None]:
        """Its running requests end first; new ones go to the next instance. Do not cancel the task."""
        if instance.leaving is None:
            instance.leaving = asyncio.create_task(self._left(instance))
        return instance.leaving

    async def _left(self, instance: Instance) -> None:
        if instance.loading is not None:
            await asyncio.wait({instance.loading})
        await instance.idle.wait()
        if instance.service is not None:
            await instance.service.engine.close()
            self._living.remove(instance)
            self.metrics.count(instance.entry.name, "model_unloads")
            log.info("%s was unloaded", instance.entry.name)
        if instance.entry.instance is instance:
            instance.entry.instance = None

    async def drain(self, entries: Collection[Entry], timeout_s: float) -> bool:
        """Refuse new requests; True once the running ones have ended, False when that takes longer."""
        for entry in entries:
            entry.drained = True
        ends = [asyncio.ensure_future(each.idle.wait()) for each in self._living if each.entry in entries]
        _, pending = await asyncio.wait(ends, timeout=timeout_s) if ends else ((), ())
        for end in pending:
            end.cancel()
        return not pending

    async def shut(self, timeout_s: float) -> None:
        """Refuse new requests; give the running ones `timeout_s`, then fail them."""
        self._closing = True
        for instance in self._living:
            if instance.loading is not None:
                instance.loading.cancel()
        await asyncio.gather(*[engine.drain(timeout_s) for engine in self._engines()])

    async def close(self) -> None:
        await self.shut(0)
        tasks = [task for each in self._living for task in (each.loading, each.leaving) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*[engine.close() for engine in self._engines()])

    def _engines(self) -> list[AsyncLLM]:
        return [instance.service.engine for instance in self._living if instance.service is not None]

    def _stats(self) -> Mapping[str, EngineStats | None]:
        services = {name: entry.service for name, entry in self.entries.items()}
        return {name: None if service is None else service.engine.stats() for name, service in services.items()}


def _resident(instance: Instance, entry: Entry, kept: Instance | None) -> Resident:
    """As one who may have to make room for a model of `entry`."""
    is_fixed = instance is kept or instance.stopped or (instance.entry.pinned and instance.entry is not entry)
    return Resident(instance.held, instance.used, instance.users > 0, instance.leaving is not None, is_fixed)


def _size(memory: MemoryPlan) -> int:
    return memory.weights + memory.scratch + memory.kv
