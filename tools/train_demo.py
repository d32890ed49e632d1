"""Trains, exports and measures the demo model that is built into Hexad.

python -m tools.train_demo train --minutes 60     # trains the tokenizer too; resumes from its checkpoint
python -m tools.train_demo export                 # writes the checkpoint as hexad/checkpoints/demo
python -m tools.train_demo eval                   # held-out accuracy, through transformers
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoTokenizer

from hexad.bench.skills import SKILLS
from tools.demo_data import Batch, Encoder, Mix, steps
from tools.demo_eval import evaluate
from tools.demo_model import DemoModel, Shape, export, save_checkpoint
from tools.demo_tokenizer import save_tokenizer, train_tokenizer

HERE = Path(__file__).resolve().parent.parent / "hexad" / "checkpoints" / "demo"
WARM_STEPS = 60
# In the order of SKILLS: chat, arithmetic, copy, retrieve, extract, tools.
SHARES = (0.15, 0.18, 0.17, 0.14, 0.18, 0.18)
# Progress from which texts for retrieval may be this long, in tokens.
LONGEST = ((0.0, 150), (0.08, 400), (0.45, 1000), (0.55, 2000))


@dataclass
class Progress:
    """What a run has done so far; saved with the weights, so that a run can be resumed."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    losses: Tensor = field(default_factory=lambda: torch.zeros(len(SKILLS)))
    counts: Tensor = field(default_factory=lambda: torch.zeros(len(SKILLS)))

    def report(self, rate: float, longest: int) -> str:
        """One line: the mean loss of each skill since the last line."""
        means = (self.losses / self.counts.clamp(min=1)).tolist()
        self.losses.zero_()
        self.counts.zero_()
        cells = "  ".join(f"{name} {mean:.3f}" for name, mean in zip(SKILLS, means, strict=True))
        head = f"step {self.step:5d}  {self.seconds / 60:5.1f} min  {self.tokens / 1e6:6.2f} M tokens"
        return f"{head}  lr x{rate:.2f}  longest {longest}  {cells}"


def longest_at(done: float) -> int:
    return max(length for start, length in LONGEST if done >= start)


def rate_at(step: int, done: float) -> float:
    """Warm-up by steps, then flat, then a straight line to zero over the last 45 % of the time."""
    return min(1.0, (step + 1) / WARM_STEPS) * min(1.0, max(0.01, (1 - done) / 0.45))


def optimizers(model: DemoModel, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms."""
    muon = torch.optim.Muon(model.matrices(), lr=rate, momentum=0.95, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(model.others(), lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    return [muon, adam]


def gradients(model: DemoModel, batch: Batch, total: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The loss of each learned token of a batch, and the gradients of their sum divided by `total`."""
    logits = model(batch.ids, batch.chosen, torch.bfloat16)
    losses = F.cross_entropy(logits, batch.targets, reduction="none")
    return losses.detach(), torch.autograd.grad(losses.sum() / total, list(model.parameters()))


def learn(model: DemoModel, group: list[Batch], pool: ThreadPoolExecutor, progress: Progress) -> None:
    """Sets the gradients of one step. Each learned token counts the same.

    Each thread takes the next batch when it is free. Where other programs use the cores too this is much faster than
    splitting every operation over the threads, which makes each of them wait for the slowest.
    """
    total = sum(len(batch.chosen) for batch in group)
    results = pool.map(lambda batch: gradients(model, batch, total), group)
    for batch, (losses, parts) in zip(group, results, strict=True):
        for parameter, part in zip(model.parameters(), parts, strict=True):
            parameter.grad = part if parameter.grad is None else parameter.grad.add_(part)
        progress.losses.index_add_(0, batch.skills, losses)
        progress.counts.index_add_(0, batch.skills, torch.ones_like(losses))
        progress.tokens += batch.ids.numel()


def resume(folder: Path, shape: Shape, rate: float) -> tuple[DemoModel, list[torch.optim.Optimizer], Progress]:
    """The checkpoint's state, or a fresh one where there is no checkpoint."""
    model, progress = DemoModel(shape), Progress()
    chosen = optimizers(model, rate)
    path = folder / "demo.pt"
    if path.exists():
        state = torch.load(path)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(chosen, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        progress = Progress(state["step"], state["seconds"], state["tokens"])
    return model, chosen, progress


def save(folder: Path, model: DemoModel, chosen: list[torch.optim.Optimizer], progress: Progress) -> None:
    extra = {"optimizers": [o.state_dict() for o in chosen], "step": progress.step, "seconds": progress.seconds,
             "tokens": progress.tokens}  # fmt: skip
    save_checkpoint(model, folder / "demo.pt", extra)


def train(args: argparse.Namespace) -> None:
    """Trains until `--minutes` of training time are used up, over all resumed runs together."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    if not (args.work / "tokenizer.json").exists():
        save_tokenizer(train_tokenizer(Shape().vocab, args.seed), args.work)
    encoder = Encoder(AutoTokenizer.from_pretrained(args.work))
    model, chosen, progress = resume(args.work, Shape(), args.rate)
    pool = ThreadPoolExecutor(args.threads, initializer=torch.set_num_threads, initargs=(1,))
    print(f"{sum(p.numel() for p in model.parameters()):,} weights, resuming at step {progress.step}", flush=True)
    saved_at = progress.seconds
    for longest, runs in itertools.groupby(iter(lambda: longest_at(progress.seconds / 60 / args.minutes), None)):
        mix = Mix(tuple(args.shares), longest, args.drills)
        data = steps(encoder, args.seed * 1_000_003 + progress.step, mix, args.tokens)
        for _ in runs:
            start, done = time.monotonic(), progress.seconds / 60 / args.minutes
            if done >= 1:
                save(args.work, model, chosen, progress)
                return
            rate = rate_at(progress.step, done)
            learn(model, next(data), pool, progress)
            update(model, chosen, args.rate * rate)
            progress.step += 1
            progress.seconds += time.monotonic() - start
            if progress.step % 50 == 0:
                print(progress.report(rate, longest), flush=True)
            if progress.seconds - saved_at > 120:
                save(args.work, model, chosen, progress)
                saved_at = progress.seconds


def update(model: DemoModel, chosen: list[torch.optim.Optimizer], rate: float) -> None:
    """One step of both optimizers; a step whose gradient is not finite is skipped."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in chosen:
        for group in optimizer.param_groups:
            group["lr"] = rate
        if math.isfinite(norm):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def write(args: argparse.Namespace) -> None:
    """Exports the checkpoint and the tokenizer."""
    state = torch.load(args.work / "demo.pt")
    model = DemoModel(Shape(**state["shape"]))
    model.load_state_dict(state["model"])
    tokenizer = AutoTokenizer.from_pretrained(args.work)
    save_tokenizer(tokenizer, args.out)
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    export(model, args.out, bos=pad, eos=eos, pad=pad)
    size = sum(path.stat().st_size for path in args.out.iterdir())
    print(f"step {state['step']}, {state['tokens']:,} tokens seen; wrote {args.out}, {size / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="folder of the checkpoint and tokenizer")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the exported model")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    verbs = parser.add_subparsers(dest="verb", required=True)
    training = verbs.add_parser("train", help="train, or go on training")
    training.add_argument("--minutes", type=float, default=60.0, help="training time in all; the schedule follows it")
    training.add_argument("--tokens", type=int, default=6144, help="padded tokens a step")
    training.add_argument("--rate", type=float, default=4e-3, help="highest learning rate")
    training.add_argument("--shares", type=float, nargs=len(SKILLS), default=SHARES, help=f"shares of {SKILLS}")
    training.add_argument("--drills", type=float, default=0.15, help="share of documents that are lists of sums")
    training.set_defaults(run=train)
    verbs.add_parser("export", help="write the exported model").set_defaults(run=write)
    measuring = verbs.add_parser("eval", help="measure the exported model on held-out examples")
    measuring.add_argument("--count", type=int, default=250, help="examples a skill")
    measuring.add_argument("--skills", nargs="+", choices=SKILLS, default=SKILLS)
    measuring.add_argument("--show", type=int, default=0, help="print this many wrong replies a skill")
    measuring.set_defaults(run=lambda args: evaluate(args.out, args.skills, args.count, args.seed, args.show))
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
