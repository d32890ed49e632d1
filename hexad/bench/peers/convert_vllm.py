"""Checkpoints of vLLM's compressed-tensors format, rounded to nearest: W8A8 and W4A16.

W8A8: int8 weights per output channel, dynamic int8 activations per token. W4A16: symmetric int4 in
groups of 128, packed eight to an int32. Embedding and head stay as they are.
Format: https://github.com/vllm-project/compressed-tensors
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

GROUP = 128


def quantize(source: Path, target: Path, bits: int) -> None:
    target.mkdir(parents=True)
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, target)
    if bits == 16:
        for file in source.glob("*.safetensors"):
            (target / file.name).symlink_to(file.resolve())
        return
    for file in source.glob("*.safetensors"):
        tensors: dict[str, Any] = {}
        for name, weight in safetensors.torch.load_file(file).items():
            is_linear = weight.ndim == 2 and ".layers." in name
            tensors |= (int8(name, weight) if bits == 8 else int4(name, weight)) if is_linear else {name: weight}
        safetensors.torch.save_file(tensors, target / file.name, metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = scheme(bits)
    (target / "config.json").write_text(json.dumps(config))


def int8(name: str, weight: Any) -> dict[str, Any]:
    scale = weight.float().abs().amax(1, keepdim=True) / 127
    return {name: (weight.float() / scale).round().to(torch.int8), f"{name}_scale": scale.to(torch.bfloat16)}


def int4(name: str, weight: Any) -> dict[str, Any]:
    outputs, inputs = weight.shape
    groups = weight.float().view(outputs, inputs // GROUP, GROUP)
    scale = groups.abs().amax(2, keepdim=True) / 7
    codes = ((groups / scale).round().clamp(-8, 7) + 8).to(torch.int32).view(outputs, inputs)
    packed = torch.zeros(outputs, inputs // 8, dtype=torch.int32)
    for place in range(8):
        packed |= codes[:, place::8] << (4 * place)
    return {
        f"{name}_packed": packed,
        f"{name}_scale": scale.squeeze(2).to(torch.bfloat16),
        f"{name}_shape": torch.tensor([outputs, inputs]),
    }


def scheme(bits: int) -> dict[str, Any]:
    common = {"num_bits": bits, "type": "int", "symmetric": True}
    weights = {**common, "dynamic": False, "strategy": "channel" if bits == 8 else "group"}
    weights |= {"group_size": GROUP} if bits == 4 else {}
    activations = {**common, "dynamic": True, "strategy": "token"} if bits == 8 else None
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized" if bits == 8 else "pack-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }
