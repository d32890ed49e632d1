"""The packed cache: the same bits with it as without, and no harm from a file or a directory that is not as it was."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
import typing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexad import LLM, SamplingParams
from hexad.checkpoints import packed
from hexad.checkpoints.packed import PackedFiles, digest
from hexad.engine import setup
from hexad.errors import CheckpointError
from hexad.kernels.ops import LEAVES, PackingOps, WeightFormat
from hexad.testing.zoo import ZOO, write_model
from hexad.text.tokenizer import Tokenizer
from tests.kernel_sets import ops_of

PROMPTS = [np.random.default_rng(n).integers(0, 512, n).tolist() for n in (1, 17, 40)]
PARAMS = SamplingParams(temperature=0.0, max_tokens=6, logprobs=5, prompt_logprobs=1, ignore_eos=True)
ORIGIN = b'{"layout":"of a test"}'


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of an empty cache, which is used for models of any size."""
    ops_of("native")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(setup, "MIN_BYTES", 0)
    return tmp_path / "hexad" / "packed"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_model(tmp_path_factory.mktemp("zoo"), ZOO["qwen3-bias"], dtype="bfloat16", shards=2)
    Tokenizer.of_bytes().save(directory)
    return directory


def start(model: Path, dtype: str = "int4-32", **options: Any) -> tuple[str, bytes]:
    """How the weights came, and all that was answered, bit for bit; what is kept is written when this returns."""
    llm = LLM(str(model), kernels="native", threads=1, dtype=dtype, kv_memory=2**22, **options)
    outputs = llm.generate(PROMPTS, PARAMS)
    for thread in threading.enumerate():
        if thread.name == "packed-cache":
            thread.join()
    return llm.info.weights, msgspec.msgpack.encode([(one.outputs, one.prompt_logprobs) for one in outputs])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4", "int4-32"])
def test_mapped_weights_give_the_same_bits(cache: Path, model: Path, dtype: str) -> None:
    source, expected = start(model, dtype, packed_cache=False)
    assert source == "packed" and not cache.exists()
    source, first = start(model, dtype)
    assert source.startswith("packed, to be kept in") and first == expected
    (file,) = cache.iterdir()
    assert (cache.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
    assert start(model, dtype) == (f"mapped from {file}", expected)
    assert start(model, dtype, load_format="dummy")[0] == "packed" and list(cache.iterdir()) == [file]


def test_what_a_file_was_made_from_decides_whether_it_is_used(cache: Path, model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    start(copy)
    assert start(copy)[0].startswith("mapped")
    assert start(copy, "int4")[0].startswith("packed")
    shard = next(copy.glob("*.safetensors"))
    os.utime(shard, ns=(0, shard.stat().st_mtime_ns + 1))
    assert start(copy)[0].startswith("packed")
    assert len(list(cache.iterdir())) == 3


def test_a_damaged_file_is_told_of_and_made_again(cache: Path, model: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, expected = start(model)
    (file,) = cache.iterdir()
    intact = file.read_bytes()
    for damaged in (b"", intact[:-1], intact + b"\0", b"\xff" * len(intact), _flipped(intact, len(intact) // 2)):
        file.write_bytes(damaged)
        caplog.clear()
        source, answer = start(model)
        assert source.startswith("packed") and answer == expected
        assert str(file) in caplog.text and "made again" in caplog.text
        assert file.read_bytes() == intact
    assert start(model) == (f"mapped from {file}", expected)


def test_parts_of_another_size_are_refused_also_where_the_digest_is_right(
    cache: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, expected = start(model)
    (file,) = cache.iterdir()
    intact = file.read_bytes()
    found = packed.SafetensorsFile(file, {"U8": np.dtype(np.uint8)})
    origin, arrays = found["made_from"].tobytes(), {name: np.array(found[name]) for name in list(found)[:-2]}
    last = next(name for name in reversed(arrays) if name.endswith("/tiles"))
    for forged in ({**arrays, last: arrays[last][:-64]}, {name: a for name, a in arrays.items() if name != last}):
        PackedFiles().save(origin, forged)
        caplog.clear()
        source, answer = start(model)
        assert source.startswith("packed") and answer == expected and "tiles must have shape" in caplog.text
        assert file.read_bytes() == intact


def _read(files: PackedFiles, origin: bytes = ORIGIN) -> packed.MappedFile:
    """All of the file, as a start reads it."""
    found = files.open(origin)
    assert found is not None
    if not found.sound():
        raise CheckpointError(f"{found.path} is damaged")
    return found


def _flipped(data: bytes, position: int, mask: int = 1) -> bytes:
    return data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[PackedFiles, bytes]:
    """A file of 3 arrays, and its bytes."""
    files = PackedFiles(tmp_path_factory.mktemp("cache") / "packed")
    rng = np.random.default_rng(0)
    files.save(ORIGIN, {f"w{n}/tiles": rng.integers(0, 256, n, np.uint8) for n in (64, 96, 9000)})
    return files, files.path(ORIGIN).read_bytes()


@settings(max_examples=300)
@given(data=st.data())
def test_no_damage_goes_unnoticed(small: tuple[PackedFiles, bytes], data: st.DataObject) -> None:
    files, intact = small
    position = data.draw(st.integers(0, len(intact) - 1))
    kind = data.draw(st.sampled_from(("flip", "cut", "hole", "insert", "swap")))
    damaged = {
        "flip": _flipped(intact, position, data.draw(st.integers(1, 255))),
        "cut": intact[:position],
        "hole": intact[:position] + b"\0" * 512 + intact[position + 512 :],
        "insert": intact[:position] + b"7" + intact[position:],
        "swap": intact[position:] + intact[:position],
    }[kind]
    path = files.path(ORIGIN)
    path.write_bytes(damaged)
    if damaged == intact:
        assert _read(files)
    else:
        with pytest.raises(CheckpointError, match=str(path)):
            _read(files)


def test_arrays_come_back_at_whole_cache_lines(small: tuple[PackedFiles, bytes]) -> None:
    files, intact = small
    files.path(ORIGIN).write_bytes(intact)
    found = _read(files)
    rng = np.random.default_rng(0)
    for n in (64, 96, 9000):
        np.testing.assert_array_equal(found[f"w{n}/tiles"], rng.integers(0, 256, n, np.uint8))
        assert found[f"w{n}/tiles"].ctypes.data % 64 == 0


def test_a_digest_sees_every_byte() -> None:
    data = np.random.default_rng(0).integers(0, 256, 2**25 + 4099, np.uint8)
    expected = digest(data)
    for position in (0, 7, 8, 4095, 4096, 2**24 - 1, 2**24, 2**25, len(data) - 1):
        data[position] ^= 128
        assert digest(data) != expected
        data[position] ^= 128
    assert digest(data) == expected
    assert digest(data[:-1]) != expected


def test_another_name_does_not_make_another_file(small: tuple[PackedFiles, bytes]) -> None:
    files, intact = small
    other = files.path(b"{}")
    other.write_bytes(intact)
    other.chmod(0o600)
    with pytest.raises(CheckpointError, match="made from something else"):
        files.open(b"{}")


def test_what_others_could_have_written_is_not_used(tmp_path: Path) -> None:
    files = PackedFiles(tmp_path / "packed")
    files.save(ORIGIN, {"w/tiles": np.zeros(64, np.uint8)})
    path = files.path(ORIGIN)
    files.directory.chmod(0o777)
    for use in (lambda: files.open(ORIGIN), lambda: files.save(ORIGIN, {})):
        with pytest.raises(CheckpointError, match="mode 777; it must be yours alone: chmod 700"):
            use()
    files.directory.chmod(0o700)
    path.chmod(0o622)
    with pytest.raises(CheckpointError, match="yours alone"):
        files.open(ORIGIN)
    path.chmod(0o600)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="cannot be read"):
        files.open(ORIGIN)
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(CheckpointError, match="yours alone"):
        files.open(ORIGIN)


def test_what_was_used_longest_ago_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = PackedFiles(tmp_path / "packed")
    array = {"w/tiles": np.zeros(4096, np.uint8)}
    monkeypatch.setattr(packed, "MAX_TOTAL_BYTES", 3 * 5000)
    for age, origin in enumerate((b"oldest", b"used again", b"newer")):
        files.save(origin, array)
        os.utime(files.path(origin), (1000 + age, 1000 + age))
    assert files.open(b"oldest")  # which makes it the newest
    abandoned, growing = files.directory / "a.part", files.directory / "b.part"
    for part, age in ((abandoned, 2 * packed.STALE_S), (growing, 60)):
        part.touch()
        os.utime(part, (time.time() - age,) * 2)
    files.save(b"newest", array)
    wanted = {files.path(origin) for origin in (b"oldest", b"newer", b"newest")} | {growing}
    assert set(files.directory.iterdir()) == wanted
    with pytest.raises(OSError, match="do not fit into"):
        files.save(b"too large", {"w/tiles": np.zeros(20_000, np.uint8)})
    assert set(files.directory.iterdir()) == wanted


def test_what_another_process_renames_meanwhile_is_no_reason_not_to_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def iterdir(self: Path) -> list[Path]:
        return [self / name for name in ("just-renamed.part", *os.listdir(self))]

    files = PackedFiles(tmp_path / "packed")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", iterdir)
        files.save(ORIGIN, {"w/tiles": np.zeros(64, np.uint8)})
    assert _read(files)


def test_a_disk_that_takes_no_more_leaves_nothing_behind(tmp_path: Path) -> None:
    files = PackedFiles(tmp_path / "packed")
    files.save(ORIGIN, {"w/tiles": np.zeros(64, np.uint8)})
    before = files.path(ORIGIN).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            files.save(ORIGIN, {"w/tiles": np.zeros(10_000, np.uint8)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(files.directory.iterdir()) == [files.path(ORIGIN)]
    assert files.path(ORIGIN).read_bytes() == before


def test_no_place_for_the_cache_is_one_line_and_no_more(
    cache: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, expected = start(model, packed_cache=False)
    cache.parent.parent.joinpath("hexad").write_text("a file where the directory should be")
    assert start(model)[1] == expected
    assert [record.message for record in caplog.records if "not kept" in record.message]
    assert len(caplog.records) <= 2


def test_other_bytes_have_another_layout() -> None:
    """Who changes how weights are packed or rounded raises LAYOUT, so that older files are not used, and then this."""
    ops = ops_of("native")
    assert isinstance(ops, PackingOps)
    hashed = hashlib.sha256()
    weight = (np.arange(40 * 328, dtype=np.int64) * 2654435761 % 2**32 / 2**31 - 1).astype(np.float32).reshape(40, 328)
    for format in typing.get_args(WeightFormat):
        for leaves in (1, LEAVES):
            for part in ops.packed_parts(ops_of("native").pack_linear(weight, format, leaves=leaves)).values():
                hashed.update(part.tobytes())
    assert (ops.layout, hashed.hexdigest()[:16]) == ("native 1", "0033c7e2ab037807")


STARTER = """
import sys, threading
from pathlib import Path
from hexad.engine import setup
setup.MIN_BYTES = 0
from tests.checkpoints.test_packed import start
sys.stdin.readline()
sys.stdout.buffer.write(start(Path(sys.argv[1]))[1])
"""


def test_processes_that_start_at_once_do_not_disturb_each_other(cache: Path, model: Path) -> None:
    command = [sys.executable, "-c", STARTER, str(model)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    answers = [process.communicate(b"go\n", timeout=60)[0] for process in processes]
    assert answers[0] == answers[1]
    assert [file.suffix for file in cache.iterdir()] == [".safetensors"]
    source, answer = start(model)
    assert source.startswith("mapped") and answer == answers[0]


def test_weights_that_may_not_be_locked_are_told_of(cache: Path, model: Path) -> None:
    start(model)
    script = STARTER.replace(
        "stdout.buffer.write(start(Path(sys.argv[1]))[1])", "stdout.write(start(Path(sys.argv[1]))[0])"
    )
    limit = ["prlimit", "--memlock=0:0"]
    if os.geteuid() == 0:  # whom no limit binds as long as it holds this capability
        limit += ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"]
    command = [*limit, sys.executable, "-c", script, str(model)]
    told = subprocess.run(command, input=b"go\n", capture_output=True, timeout=60, check=True).stdout.decode()
    assert told.startswith("mapped from") and "not locked in memory" in told
