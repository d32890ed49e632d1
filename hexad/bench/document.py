"""What `hexad bench compare` measures and writes as results.json; the report is a function of it alone."""

from __future__ import annotations

import msgspec

from hexad.bench.workload import Figures, Workload

WORKLOADS = {
    "W1": "one stream: prompt of 128, 128 new tokens",
    "W2": "prefill of 1,024 tokens",
    "W3": "32 requests at once, prompts 64 to 256, outputs 32 to 96",
    "W4": "16 requests that share 1,024 tokens, 32 of their own, 32 new",
    "W5": "48 of W3's requests arriving at 70 % of the peer's best throughput",
    "W6": "process start to first token, files cached",
    "concurrency": "W3's requests, 1 to 32 at once",
    "load": "24 of W3's requests arriving at 40 %, 100 % and 130 % of the best peer's best throughput",
}
CONCURRENCIES = (1, 2, 4, 8, 16, 32)
LOADS = {"W5": (0.7,), "load": (0.4, 1.0, 1.3)}
ARRIVALS = {"W5": 48, "load": 24}
SHARED = 1024


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One contestant on one workload: figures, or why there are none."""

    workload: str
    bits: int
    name: str
    figures: Figures | None = None
    seconds: list[float] = []
    """Of each run."""
    error: str = ""
    note: str = ""
    peer: str = ""
    """W5 and load: whose throughput sets the load."""
    rate: float = 0.0
    """Requests a second."""
    concurrency: int = 0


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A contestant; `error` says why it did not run at all."""

    name: str
    bits: int
    what: str
    packages: list[str] = []
    error: str = ""


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """The machine's ceilings: GB/s of reads, T operations/s; 0 where not measured."""

    when: str = ""
    read_gb: float = 0.0
    float32: float = 0.0
    bfloat16: float = 0.0
    int8: float = 0.0


class Document(msgspec.Struct, frozen=True, kw_only=True):
    date: str
    hexad: str
    processor: str
    threads: int
    memory_gib: float
    python: str
    kernels: str
    model: str
    layer_weights: int
    head_weights: int
    floors: list[Floor]
    """At the start and after each number of bits: the state of the memory changes."""
    entries: list[Entry]
    rows: list[Row]

    @property
    def floor(self) -> Floor:
        """The best of each."""
        return Floor(
            read_gb=max(floor.read_gb for floor in self.floors),
            float32=max(floor.float32 for floor in self.floors),
            bfloat16=max(floor.bfloat16 for floor in self.floors),
            int8=max(floor.int8 for floor in self.floors),
        )

    @property
    def contestants(self) -> list[str]:
        return [f"{entry.name} {entry.bits} ({', '.join(entry.packages)})" for entry in self.entries]

    def find(self, workload: str, bits: int) -> list[Row]:
        return [row for row in self.find_all(bits) if row.workload == workload]

    def find_all(self, bits: int) -> list[Row]:
        return [row for row in self.rows if row.bits == bits]


def workloads(vocab_size: int) -> dict[str, Workload]:
    """W1 to W4; the others are made of W3."""

    def of(num_prompts: int, input_len: tuple[int, int], output_len: tuple[int, int], shared: int = 0) -> Workload:
        return Workload(
            input_len=input_len, output_len=output_len, num_prompts=num_prompts, vocab_size=vocab_size, shared=shared
        )

    return {
        "W1": of(1, (128, 128), (128, 128)),
        "W2": of(1, (1024, 1024), (1, 1)),
        "W3": of(32, (64, 256), (32, 96)),
        "W4": of(16, (32, 32), (32, 32), SHARED),
    }
