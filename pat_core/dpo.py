"""One agent's adapter taught by preference pairs: DPO rounds' training step (method: DPO rounds), on a laptop or on GPUs.

The run starts from the adapter that serves now, keeps a copy of it as the reference and writes a new PEFT folder; it publishes nothing.
Checkpoints in the run's folder let a run that was killed go on where it stood: a reboot costs a few steps, never the adapter. On a CPU all
is float32; with CUDA the base is loaded in 4 bits and the optimizer's state has 8 (bitsandbytes), by the same call, and ``accelerate
launch`` runs it on several GPUs. Leaves out the loss (``dpo_trainer``), where pairs come from (``preferences``) and publishing.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from pat_core.cache import SEAL, file_sha256, is_sealed, seal
from pat_core.preferences import pair_to_row
from pat_core.types import PreferencePair

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import BitsAndBytesConfig
    from trl import DPOConfig

    from pat_core.dpo_trainer import WeightedDPOTrainer

log = logging.getLogger(__name__)

Stage = Literal["reference", "training"]
PRECISIONS = ("auto", "float32", "bfloat16")
QUANTS = ("auto", "", "nf4")
ROWS = "rows"  # the folder of a run's dataset
WEIGHTS = "adapter_model.safetensors"
LIGHT = 0.25  # pairs lighter than that are thinned out where there are many
MANY = 256
_TRAINING_WORK = 2.5  # a token trained on costs so many tokens read by the reference


class TrainingError(RuntimeError):
    """A run that ended without an adapter; the message says why and what to do. Its checkpoints stay."""


class Cancelled(TrainingError):
    """The run was asked to stop."""


@dataclass(frozen=True, slots=True)
class DPOSettings:
    """Settings of a run. ``beta`` is DPO's, in 1 / nats; ``batch_size`` pairs make one update, ``at_once`` of them are computed together.

    ``at_once`` 0 is 1 on a CPU, where there is then no padding, and 4 with CUDA. ``rank`` and ``alpha`` are of a new adapter, where none
    serves yet. ``max_tokens`` bounds prompt + longer text. ``quant`` auto is nf4 with CUDA. ``precision`` of the computing: auto is
    bfloat16 with CUDA and float32 on a CPU; bfloat16 takes two thirds of the time on a CPU that has AVX512-BF16, but moves the
    log-probability of a text of 40 tokens by 0.3.
    """

    learning_rate: float = 1e-4
    beta: float = 0.1
    epochs: int = 2
    batch_size: int = 8
    at_once: int = 0
    max_tokens: int = 768
    rank: int = 8
    alpha: int = 16
    quant: str = "auto"
    precision: str = "auto"
    save_steps: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "beta"):
            if not 0 < getattr(self, name) < 1e3:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}")
        least = {"epochs": 1, "batch_size": 1, "at_once": 0, "max_tokens": 8, "rank": 1, "alpha": 1, "save_steps": 1}
        for name, low in least.items():
            if not (isinstance(getattr(self, name), int) and getattr(self, name) >= low):
                raise ValueError(f"{name} must be a whole number of at least {low}, not {getattr(self, name)!r}")
        for name, known in (("precision", PRECISIONS), ("quant", QUANTS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} is not known; use one of {', '.join(map(repr, known))}")


@dataclass(frozen=True, slots=True)
class Point:
    """One update of a run: means over its pairs, before the update. ``margin`` is the mean logit, ``accuracy`` the share of logits above 0,
    ``kl`` an estimate of the policy's distance to the reference in nats a token; ``tokens`` and ``seconds`` since the run began."""

    step: int
    loss: float
    margin: float
    accuracy: float
    kl: float
    chosen_tokens: float
    rejected_tokens: float
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a run is: ``tokens`` of ``all_tokens``, the reference's reading included; ``minutes_left`` is None until it can be told."""

    stage: Stage
    tokens: int
    all_tokens: int
    minutes_left: float | None
    curve: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """A finished run. ``n_weightless`` pairs had weight 0, ``n_too_long`` more tokens than allowed: neither was used; for ``n_thinned``
    light ones others stood in."""

    adapter: Path
    n_pairs: int
    n_weightless: int
    n_too_long: int
    steps: int
    tokens: int
    seconds: float
    curve: tuple[Point, ...]
    n_thinned: int = 0

    def metrics(self) -> dict[str, Any]:
        """The report for an adapter's manifest."""
        return {k: v for k, v in asdict(self).items() if k != "adapter"}


def train_preferences(
    base: Path | str,
    parent: Path | None,
    pairs: Sequence[PreferencePair],
    out: Path,
    settings: DPOSettings | None = None,
    *,
    device: str = "",
    threads: int = 2,
    progress: Callable[[Standing], None] | None = None,
    cancel: threading.Event | None = None,
) -> Report:
    """Trains the adapter in ``parent`` (None: a new one) on ``pairs``, all of one agent, into the PEFT folder ``out/adapter``.

    ``base`` is a model's folder or hub id, ``threads`` the CPU threads. A run with the same arguments goes on from ``out``'s newest whole
    checkpoint, or returns at once if it had ended; other checkpoints there are deleted, damaged ones passed over. More than ``MANY`` pairs
    lighter than ``LIGHT`` are ``thinned``. ``progress`` hears of every batch. Raises
    ValueError for pairs or settings that nothing can be learned from, Cancelled soon after ``cancel`` is set, and TrainingError, in a
    sentence, where the loss is not a number, memory or disk run out, or another process trains in ``out``.
    """
    settings = settings or DPOSettings()
    usable = _usable(pairs)
    kept = thinned(usable)
    fingerprint = _fingerprint(base, parent, kept, settings)
    meter = _Meter(settings.epochs, progress, cancel or threading.Event())
    with _explained(settings):
        args = _arguments(out, settings, device, threads)
        with _alone(out, args.process_index):
            if found := _finished(out, fingerprint):
                return found
            if args.process_index == 0:
                _begin(out, fingerprint)
            trainer = _trainer(base, parent, kept, settings, args, meter)
            steps = trainer.train(resume_from_checkpoint=whole_checkpoint(out, sealed=True)).global_step
            curve = points(trainer.state.log_history)
            report = Report(
                adapter=out / "adapter",
                n_pairs=len(kept) - trainer.n_too_long,
                n_weightless=len(pairs) - len(usable),
                n_too_long=trainer.n_too_long,
                steps=steps,
                tokens=curve[-1].tokens,
                seconds=curve[-1].seconds,
                curve=curve,
                n_thinned=len(usable) - len(kept),
            )
            if args.process_index == 0:
                _save(trainer.accelerator.unwrap_model(trainer.model), out, report)
            trainer.accelerator.wait_for_everyone()
            return report


def thinned(pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    """``pairs``, of which more than ``MANY`` lighter than ``LIGHT`` are represented by some of them, chosen in proportion to their weights.

    As many as have the weight of all of them at ``LIGHT`` each: somebody whose thousands of votes count for a hundred then costs the time
    of a few hundred pairs. Which ones is the same for the same pairs, in whatever order.
    """
    light = [i for i, p in enumerate(pairs) if p.weight < LIGHT]
    if len(light) <= MANY:
        return list(pairs)
    light.sort(key=lambda i: hashlib.sha256(repr((pairs[i].prompt, pairs[i].chosen, pairs[i].rejected)).encode()).digest())
    total = math.fsum(pairs[i].weight for i in light)
    n = max(1, round(total / LIGHT))
    reached, kept = 0.0, set()
    for i in light:  # systematic sampling: one at each of n equal steps of the summed weight
        before, reached = reached, reached + pairs[i].weight
        if math.floor(reached * n / total + 0.5) > math.floor(before * n / total + 0.5):
            kept.add(i)
    each = total / len(kept)
    dropped = set(light) - kept
    return [replace(p, weight=each) if i in kept else p for i, p in enumerate(pairs) if i not in dropped]


def data_facts(pairs: Sequence[PreferencePair]) -> dict[str, Any]:
    """What a manifest says about training pairs: how many, of whom, and the sha256 of their rows."""
    rows = "\n".join(json.dumps(pair_to_row(p), sort_keys=True) for p in pairs)
    sources = dict(sorted(Counter(p.source for p in pairs).items()))
    return {"sha256": hashlib.sha256(rows.encode("utf-8", "surrogatepass")).hexdigest(), "n_pairs": len(pairs), "sources": sources}


def judgment_ids(pairs: Sequence[PreferencePair]) -> tuple[str, ...]:
    """The votes behind ``pairs``, sorted, each once."""
    return tuple(sorted({id_ for p in pairs for id_ in p.judgment_ids}))


def whole_checkpoint(out: Path, sealed: bool = False) -> str | None:
    """The newest checkpoint in ``out`` that was written to its end, or None; ``sealed``: of which nothing is damaged, besides."""
    folders = sorted(out.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]), reverse=True)
    return next((str(f) for f in folders if _is_whole(f, sealed)), None)


def _is_whole(checkpoint: Path, sealed: bool = False) -> bool:
    """Whether its last file is there (trainer_state.json) and can be read, and so is its first: deleting may have been cut short too, and
    the trainer goes on without a word where the weights are missing."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        whole = is_sealed(checkpoint) if sealed or (checkpoint / SEAL).exists() else (checkpoint / WEIGHTS).is_file()
    except (OSError, ValueError):
        whole = False
    if not whole:
        log.warning("%s is not whole and is passed over", checkpoint)
    return whole


def chat(messages: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """(speaker, text) messages in TRL's conversational form."""
    return [{"role": speaker, "content": text} for speaker, text in messages]


def send_no_telemetry() -> None:
    """Keeps TRL from reporting each trainer that is made to its authors; only the process that trains is changed."""
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True


def _usable(pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    kept = [p for p in pairs if p.weight > 0]
    if not kept:
        raise ValueError(f"none of the {len(pairs)} pairs has a weight above 0, so there is nothing to learn from")
    agents = sorted({p.agent for p in kept})
    if len(agents) > 1:
        raise ValueError(f"the pairs are of {', '.join(agents)}; one agent is trained at a time")
    return kept


# The run


def _trainer(
    base: Path | str, parent: Path | None, pairs: Sequence[PreferencePair], settings: DPOSettings, args: DPOConfig, meter: _Meter
) -> WeightedDPOTrainer:
    from datasets import Dataset
    from transformers import AutoTokenizer, PrinterCallback

    from pat_core.dpo_trainer import WeightedDPOTrainer

    rows = Path(args.output_dir) / ROWS  # on disk: there all processes, and the next start, find what the reference made of them
    with args.main_process_first(local=False):
        if not rows.exists():
            unfinished = rows.with_name(f".{ROWS}.new")
            Dataset.from_list([_row(p) for p in pairs]).save_to_disk(unfinished)
            unfinished.rename(rows)
    trainer = WeightedDPOTrainer(
        model=_policy(base, parent, settings, args),
        args=args,
        train_dataset=Dataset.load_from_disk(rows),
        processing_class=AutoTokenizer.from_pretrained(base, trust_remote_code=False),
        max_tokens=settings.max_tokens,
        watch=meter,
    )
    trainer.remove_callback(PrinterCallback)
    if args.process_index == 0:
        seal(rows)
    trainer.accelerator.wait_for_everyone()
    return trainer


def _row(pair: PreferencePair) -> dict[str, Any]:
    """TRL's columns and ours. Control tokens inside texts stay text, as when the model is served."""
    row = pair_to_row(pair)
    options = {"sanitize_control_tokens": True, "enable_thinking": False}
    return {name: row[name] for name in ("prompt", "chosen", "rejected", "weight", "q")} | {"chat_template_kwargs": options}


def _policy(base: Path | str, parent: Path | None, settings: DPOSettings, args: DPOConfig) -> PeftModel:
    """The base with ``parent`` as its trainable adapter ``default``; peft loads damaged ones in silence, so what it holds is checked."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    quantization = _quantization(settings, args)
    model = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=torch.float32,
        attn_implementation="sdpa",
        quantization_config=quantization,
        device_map={"": args.local_process_index} if quantization else None,
        use_safetensors=True,
        trust_remote_code=False,
    )
    if parent is None:
        return get_peft_model(
            model, LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    policy = PeftModel.from_pretrained(model, str(parent), is_trainable=True)
    stored, held = load_file(parent / WEIGHTS), get_peft_model_state_dict(policy)
    if stored.keys() != held.keys() or not all(torch.isfinite(t).all() for t in stored.values()):
        raise ValueError(f"adapter {parent.name} does not fit this model or is damaged; start from another version")
    return policy


def _quantization(settings: DPOSettings, args: DPOConfig) -> BitsAndBytesConfig | None:
    import torch
    from transformers import BitsAndBytesConfig

    if args.use_cpu or settings.quant == "":
        return None
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def _arguments(out: Path, settings: DPOSettings, device: str, threads: int) -> DPOConfig:
    import torch
    from trl import DPOConfig

    send_no_telemetry()
    torch.set_num_threads(threads)
    cuda = torch.cuda.is_available() and device != "cpu"
    if settings.quant == "nf4" and not cuda:
        raise ValueError("quant 'nf4' runs through bitsandbytes on CUDA, and there is none here; use 'auto'")
    at_once = min(settings.at_once or (4 if cuda else 1), settings.batch_size)
    args = DPOConfig(
        output_dir=str(out),
        beta=settings.beta,
        precompute_ref_log_probs=True,
        max_length=None,  # a pair that is too long is left out whole
        per_device_train_batch_size=at_once,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",  # without a warm-up, whose first step would be a tenth of a small round and learn nothing
        num_train_epochs=settings.epochs,
        bf16=settings.precision == "bfloat16" or (settings.precision == "auto" and cuda),
        optim="adamw_8bit" if cuda else "adamw_torch",
        use_cpu=not cuda,
        gradient_checkpointing=False,
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        seed=settings.seed,
        dataloader_pin_memory=cuda,
    )
    args.gradient_accumulation_steps = max(1, round(settings.batch_size / (at_once * args.world_size)))
    return args


def points(history: Sequence[Mapping[str, float]]) -> tuple[Point, ...]:
    """The curve of a trainer's log rows, tokens and seconds summed up."""
    found: list[Point] = []
    tokens, seconds = 0, 0.0
    for row in history:
        if "margin" in row:
            tokens, seconds = tokens + int(row["tokens"]), seconds + row["seconds"]
            measures = {name: row[name] for name in ("loss", "margin", "accuracy", "kl", "chosen_tokens", "rejected_tokens")}
            found.append(Point(step=int(row["step"]), **measures, tokens=tokens, seconds=round(seconds, 1)))
    return tuple(found)


class _Meter:
    """Tells ``progress`` how far the run is, and stops it where ``cancel`` is set."""

    def __init__(self, epochs: int, progress: Callable[[Standing], None] | None, cancel: threading.Event) -> None:
        self._epochs, self._progress, self._cancel = epochs, progress, cancel
        self._reference_tokens = 0
        self._first: tuple[float, float] | None = None  # (when, work done then)

    def __call__(self, stage: Stage, done: int, whole: int, history: Sequence[Mapping[str, float]]) -> None:
        if self._cancel.is_set():
            raise Cancelled("the training was stopped; what it had learned up to its last checkpoint is kept for the next start")
        self._reference_tokens = whole if stage == "reference" else whole // self._epochs
        if self._progress is None:
            return
        read, trained = (done, 0) if stage == "reference" else (self._reference_tokens, done)
        all_work = self._reference_tokens * (1 + _TRAINING_WORK * self._epochs)
        work, now = read + trained * _TRAINING_WORK, time.monotonic()
        if self._first is None:
            self._first = (now, work)
        since, then = now - self._first[0], self._first[1]
        left = since * (all_work - work) / (work - then) / 60 if work > then else None
        all_tokens = self._reference_tokens * (1 + self._epochs)
        self._progress(Standing(stage, read + trained, all_tokens, left, points(history)))


# The folder of a run


def _fingerprint(base: Path | str, parent: Path | None, pairs: Sequence[PreferencePair], settings: DPOSettings) -> str:
    facts = {
        "base": Path(base).name,
        "parent": file_sha256(parent / WEIGHTS) if parent else "",
        "pairs": data_facts(pairs),
        "settings": asdict(settings),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@contextmanager
def _alone(out: Path, rank: int) -> Iterator[None]:
    """One run at a time in ``out``; the processes of one run count as one."""
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock")
    if rank == 0:
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise TrainingError(f"another process is training in {out}; wait for it, or stop it") from error
    try:
        yield
    finally:
        if rank == 0:
            for folder in out.glob("checkpoint-*"):
                if not _is_whole(folder):
                    shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _begin(out: Path, fingerprint: str) -> None:
    """Makes ``out`` ready: what another run left there goes."""
    marker = out / "run.sha256"
    if not marker.is_file() or marker.read_text(encoding="utf-8") != fingerprint:
        for folder in (*out.glob("checkpoint-*"), out / ROWS):
            shutil.rmtree(folder, ignore_errors=True)
    if not is_sealed(out / ROWS):  # damaged, or of a run that died before it had read all of them
        shutil.rmtree(out / ROWS, ignore_errors=True)
    for leftover in ("adapter", f".{ROWS}.new"):
        shutil.rmtree(out / leftover, ignore_errors=True)
    (out / "report.json").unlink(missing_ok=True)
    marker.write_text(fingerprint, encoding="utf-8")


def _save(policy: PeftModel, out: Path, report: Report) -> None:
    """The adapter as float16 safetensors, the report last; then checkpoints and rows have served their purpose."""
    from safetensors.torch import load_file, save_file

    policy.save_pretrained(out / "adapter", selected_adapters=["default"])
    weights = out / "adapter" / WEIGHTS
    save_file({name: t.half() for name, t in load_file(weights).items()}, weights, metadata={"format": "pt"})
    seal(out / "adapter")
    value = asdict(report) | {"adapter": report.adapter.name, "fingerprint": (out / "run.sha256").read_text(encoding="utf-8")}
    new = out / ".report.json.new"
    new.write_text(json.dumps(value, indent=1), encoding="utf-8")
    new.replace(out / "report.json")
    for folder in (*out.glob("checkpoint-*"), out / ROWS):
        shutil.rmtree(folder, ignore_errors=True)


def _finished(out: Path, fingerprint: str) -> Report | None:
    """The report of the run ``fingerprint`` if it had ended in ``out`` and its adapter is whole."""
    try:
        value = json.loads((out / "report.json").read_text(encoding="utf-8"))
        if value.pop("fingerprint") != fingerprint or not is_sealed(out / "adapter"):
            return None
        return Report(**value | {"adapter": out / value["adapter"], "curve": tuple(Point(**p) for p in value["curve"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _explained(settings: DPOSettings) -> Iterator[None]:
    """Turns what ends a run from outside into a TrainingError with a sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except (TrainingError, ValueError):
        raise
    except (RuntimeError, OSError, MemoryError, SystemError, FloatingPointError, SafetensorError) as error:
        sentence = _sentence(error, settings)
        if not sentence:
            raise
        raise TrainingError(sentence) from error


def _sentence(error: BaseException, settings: DPOSettings) -> str:
    """Why ``error`` ended a run and what to do, '' for one that is not known."""
    if isinstance(error, FloatingPointError):
        lower = f"train with a lower learning rate than {settings.learning_rate:g}"
        return f"{error}, so the run was stopped and nothing of it is used; {lower}"
    if lacks_memory(error):
        return (
            "the memory did not suffice, so the run was stopped and nothing of it is used; "
            f"allow fewer than {settings.max_tokens} tokens a pair, set at_once to 1, or close other programs"
        )
    if lacks_room(error):
        return "the disk is full, so the run was stopped and nothing of it is used; make room and start it again: it goes on where it stood"
    return ""


def lacks_memory(error: BaseException) -> bool:
    """Whether ``error`` comes of memory that did not suffice, in whatever library."""
    return any(isinstance(e, MemoryError) or _says(e, _NO_MEMORY) for e in _causes(error))


def lacks_room(error: BaseException) -> bool:
    """Whether ``error`` comes of a full disk, or of a file that may not grow."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return any((isinstance(e, OSError) and e.errno in full) or _says(e, _NO_ROOM) for e in _causes(error))


_NO_MEMORY = (
    "out of memory", "allocate memory", "not enough memory", "bad_alloc", "can't start new thread", "failed to map segment",
    "error return without exception set",  # a SystemError: C code that got no memory and did not say so
)  # fmt: skip
_NO_ROOM = ("no space left", "pytorchstreamwriter failed", "iostream error", "file write failed", "file too large", "quota exceeded")


def _says(error: BaseException, words: Sequence[str]) -> bool:
    said = str(error).lower()
    return any(w in said for w in words)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """``error``, what it came of, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
