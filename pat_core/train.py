"""Training the adapters of the agents and the generator with TRL and PEFT; the only module that imports them for training.

``python -m pat_core.train warm-start`` teaches one role after the other its form (supervised, LoRA, loss on the answer alone) and publishes
each. Checkpoints are kept, so a run that was killed goes on where it stood. Leaves out the rounds (``rounds``), which this command hands
over by name.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pat_core.adapters import Manifest, active_adapters, publish
from pat_core.config import DEMO_CORPUS, Config, load_config
from pat_core.corpus import read_corpus
from pat_core.dpo import chat, send_no_telemetry, whole_checkpoint
from pat_core.llm import open_llm
from pat_core.llm.prompting import ChatTokenizer
from pat_core.llm.types import LLM, LLMError, Request
from pat_core.lora import CANARIES, AdapterError, canary, check_served
from pat_core.progress import terminal_progress
from pat_core.prompts import Messages
from pat_core.types import ADAPTER_ROLES, Role
from pat_core.warm_start import Example, examples
from pat_core.weights import WeightsError, embedded_gguf, read_facts, reference_folder, serving_gguf, sha256

if TYPE_CHECKING:
    from peft import PeftModel

log = logging.getLogger(__name__)

EXAMINED_TOKENS = 32  # of an answer that a new version is examined by
HANDED_OVER = {
    "rounds": "DPO rounds from automatic rewards, from votes, or from both",
    "closed-loop": "whether one round learns the taste of a simulated annotator",
}


@dataclass(frozen=True, slots=True)
class WarmStart:
    """Settings of a supervised run. ``rank`` and ``alpha`` of LoRA on all projections (arXiv 2106.09685)."""

    learning_rate: float = 6e-4
    batch_size: int = 8
    epochs: float = 1.0
    rank: int = 8
    alpha: int = 16
    max_tokens: int = 420
    seed: int = 0


def train_supervised(
    base: Path, data: Sequence[Example], out: Path, settings: WarmStart, device: str = "", parent: Path | None = None
) -> dict[str, float]:
    """Trains a LoRA, new or the one in ``parent``, on ``data`` into the PEFT folder ``out/adapter``, from ``out``'s checkpoints on.

    Returns losses, steps, seconds.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig, PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    if not data:
        raise ValueError("there is nothing to train on: no example was made from these files")
    send_no_telemetry()
    cuda = torch.cuda.is_available() and device != "cpu"
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    new = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    if parent is not None:
        model = PeftModel.from_pretrained(model, str(parent), is_trainable=True)
    chats = [{"prompt": chat(e.messages), "completion": chat([("assistant", e.completion)])} for e in data]
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(out),
            per_device_train_batch_size=settings.batch_size,
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            max_length=settings.max_tokens,
            completion_only_loss=True,
            bf16=True,
            use_cpu=not cuda,
            save_steps=40,
            save_total_limit=2,
            logging_steps=2 if parent else 10,
            report_to=[],
            seed=settings.seed,
            dataloader_pin_memory=False,
            train_sampling_strategy="group_by_length",
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list(chats),
        processing_class=AutoTokenizer.from_pretrained(base, local_files_only=True),
        peft_config=new if parent is None else None,
    )
    started = time.time()
    result = trainer.train(resume_from_checkpoint=whole_checkpoint(out))
    trainer.model.to(torch.float16).save_pretrained(out / "adapter")
    history = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {
        "first_loss": history[0],
        "last_loss": history[-1],
        "n_examples": len(data),
        "steps": result.global_step,
        "seconds": round(time.time() - started),
    }


@dataclass(frozen=True, slots=True)
class Reference:
    """An adapter as transformers runs it, without a batch or a cache between calls: what the served model is held against."""

    model: PeftModel
    tokenizer: ChatTokenizer

    @classmethod
    def load(cls, base: Path | str, adapter: Path | None, device: str = "cpu") -> Reference:
        """The base on ``device``, with ``adapter`` where there is one."""
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True, use_safetensors=True)
        adapted = PeftModel.from_pretrained(model, str(adapter)) if adapter else model
        return cls(adapted.to(device).eval(), ChatTokenizer.from_folder(base))

    def write(self, messages: Messages) -> str:
        """The greedy answer, at most ``EXAMINED_TOKENS`` long."""
        import torch
        from transformers import GenerationConfig

        ids = torch.tensor([self.tokenizer.prompt(messages).token_ids], device=self.model.device)
        ends = sorted(self.tokenizer.end_ids)
        how = GenerationConfig(max_new_tokens=EXAMINED_TOKENS, do_sample=False, eos_token_id=ends, pad_token_id=ends[0])
        written = self.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=how)[0, ids.shape[1] :]
        return self.tokenizer.decode([int(t) for t in written if int(t) not in self.tokenizer.end_ids])

    def score(self, messages: Messages, text: str, *, half: bool = False) -> float:
        """Mean log-probability of the tokens of ``text`` as the answer, in nats; ``half`` computes in bfloat16."""
        import torch

        prompt, whole = (self.tokenizer.prompt(messages, prefix).token_ids for prefix in ("", text))
        ids = torch.tensor([whole], device=self.model.device)
        answer = ids[0, len(prompt) :]
        with torch.inference_mode(), torch.autocast(ids.device.type, torch.bfloat16, enabled=half):
            logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=len(answer) + 1).logits[0, :-1]
        return logits.float().log_softmax(-1).gather(1, answer[:, None]).mean().item()


def examiner(config: Config, gguf: Path, role: Role) -> Callable[[Path], dict[str, Any]]:
    """What ``publish`` has to ask of a new version of ``role``: its canary through transformers; the merged model that is served, made and
    held against it. Half a minute for the embedded model; where OpenVINO does not serve it, the merged file is made and not run."""

    def examine(folder: Path) -> dict[str, Any]:
        reference = Reference.load(reference_folder(gguf, config.home), folder)
        found = canary(role, reference.write, reference.score)
        if read_facts(gguf, config.home).architecture != "llama":
            return found
        try:
            serving_gguf(gguf, config.home, adapter=folder)
        except ValueError as error:
            raise AdapterError(str(error)) from error
        if importlib.util.find_spec("openvino_genai") is None:
            return found | {"served_asked": 0}
        served = open_llm(replace(config, engine="openvino", quant="", device=""), adapters={role: folder})
        try:
            prompts = [messages for messages, _ in CANARIES.values()]
            return found | check_served(reference.write, reference.score, partial(_served_answer, served, role), prompts)
        finally:
            served.close()

    return examine


def _served_answer(served: LLM, role: Role, messages: Messages) -> str:
    request = Request("", served.prompt(messages), role, max_new_tokens=EXAMINED_TOKENS)
    return next(event.text for event in served.generate([request]) if event.finish)


def warm_start(
    config: Config, files: Mapping[Path, int], roles: Sequence[Role], registry: Path, settings: WarmStart, go_on: bool = False
) -> list[Manifest]:
    """Trains and publishes an adapter for each of ``roles`` from at most ``files[path]`` examples of each file.

    ``go_on`` starts from the adapter that serves the role now; its rank stays.
    """
    progress = terminal_progress()
    gguf = embedded_gguf(config.home)
    base, base_sha256 = reference_folder(gguf, config.home), sha256(gguf)
    serving = active_adapters(config.home, base_sha256) if go_on else {}
    corpora = {path: read_corpus(path, progress=progress)[0] for path in files}
    published = []
    for role in roles:
        data = [e for path, corpus in corpora.items() for e in examples(corpus, role, files[path], settings.seed)]
        print(f"{role}: {len(data)} examples", flush=True)
        parent = serving.get(role)
        out = config.home / "training" / f"warm-start-{role}{'-from-' + parent.name if parent else ''}"
        metrics = train_supervised(base, data, out, settings, config.device, parent)
        facts = {c.name: {"fingerprint": c.fingerprint, "at_most": files[path]} for path, c in corpora.items()}
        manifest = publish(
            out / "adapter",
            registry,
            role,
            gguf.stem,
            base_sha256,
            data=facts,
            settings={"kind": "warm start", **asdict(settings)},
            metrics=metrics,
            parent=parent.name if parent else "",
            by="warm-start",
            examine=examiner(config, gguf, role),
        )
        published.append(manifest)
        print(f"{role}: {json.dumps(metrics)} -> {manifest.version}", flush=True)
    return published


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m pat_core.train``."""
    parser = argparse.ArgumentParser(prog="python -m pat_core.train", description="Train the adapters of the agents and the generator.")
    commands = parser.add_subparsers(dest="command", required=True)
    warm = commands.add_parser("warm-start", help="teach each role its form, supervised")
    warm.add_argument(
        "--data", action="append", metavar="FILE[:N]", help="a corpus file and how many examples to take from it; again for more"
    )
    warm.add_argument("--roles", nargs="+", choices=ADAPTER_ROLES, default=list(ADAPTER_ROLES))
    warm.add_argument("--out", type=Path, help="the registry to publish to (default: adapters under PAT_HOME)")
    warm.add_argument("--go-on", action="store_true", help="start from the adapter that serves now, not from nothing")
    warm.add_argument("--learning-rate", type=float, default=WarmStart().learning_rate)
    warm.add_argument("--rank", type=int, default=WarmStart().rank)
    warm.add_argument("--epochs", type=float, default=WarmStart().epochs)
    warm.add_argument("--seed", type=int, default=0)
    for name, text in HANDED_OVER.items():
        commands.add_parser(name, help=text, add_help=False)
    given = list(sys.argv[1:] if argv is None else argv)
    if given and given[0] in HANDED_OVER:  # they may need votes, which the core does not know
        return importlib.import_module("annotate.learning").main(given)
    args = parser.parse_args(given)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        config = load_config()
        files = dict(_file_and_count(text) for text in args.data or [str(DEMO_CORPUS)])
        settings = WarmStart(args.learning_rate, rank=args.rank, epochs=args.epochs, seed=args.seed)
        warm_start(config, files, args.roles, args.out or config.home / "adapters", settings, args.go_on)
    except (ValueError, OSError, LLMError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _file_and_count(text: str) -> tuple[Path, int]:
    name, colon, count = text.rpartition(":")
    if colon and count.isdigit():
        return Path(name), int(count)
    return Path(text), 1000


if __name__ == "__main__":
    sys.exit(main())
