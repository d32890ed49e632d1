"""What the settings become before a weight is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hexad.config import Config
from hexad.engine.setup import resolve_settings
from hexad.kernels.precision import Precision
from hexad.testing.zoo import BASE, ZOO, write_model


@pytest.mark.parametrize(
    ("stored", "dtype", "linear", "head", "table", "kv"),
    [
        ("float32", "auto", "float32", "float32", "float32", "float32"),
        ("float16", "auto", "bfloat16", "bfloat16", "bfloat16", "bfloat16"),
        ("float32", "bfloat16", "bfloat16", "bfloat16", "bfloat16", "bfloat16"),
        ("float32", "int8", "int8", "int8", "float32", "bfloat16"),
        ("float16", "int4", "int4-128", "int8", "bfloat16", "bfloat16"),
        ("bfloat16", "int4-64", "int4-64", "int8", "bfloat16", "bfloat16"),
        ("bfloat16", "int4-32", "int4-32", "int8", "bfloat16", "bfloat16"),
    ],
)
def test_what_a_dtype_means_for_each_part(
    tmp_path: Path, stored: str, dtype: Any, linear: Any, head: Any, table: Any, kv: Any
) -> None:
    directory = write_model(tmp_path, ZOO["llama"], dtype=stored)
    assert resolve_settings(Config(model=str(directory), dtype=dtype)).precision == Precision(linear, head, table, kv)


def test_a_table_counts_where_it_is_not_left_in_the_file(tmp_path: Path) -> None:
    def planned(**options: Any) -> int:
        return resolve_settings(Config(model=str(directory), **options)).memory.weights

    directory = write_model(tmp_path, ZOO["llama"], dtype="bfloat16")
    table = BASE["vocab_size"] * BASE["hidden_size"] * 2
    assert planned(load_format="dummy") == planned(kernels="torch") == planned() + table
    falling = [planned(dtype=dtype) for dtype in ("bfloat16", "int8", "int4-32", "int4-64", "int4")]
    assert falling == sorted(falling, reverse=True) and len(set(falling)) == 5
