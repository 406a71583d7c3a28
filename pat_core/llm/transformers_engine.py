"""The reference engine: any chat model of transformers, on any device, one decode loop over a left-padded batch.

Every other engine is held against this one; on CUDA it also serves, with bitsandbytes quantization. Requests of one batch are grouped by
role, since peft's active adapter belongs to the whole model, and the groups take turns step by step. Leaves out beam search and paged
caches; vLLM through the server engine is the fast way on large GPUs.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pat_core.llm.prompting import ChatTokenizer, TextStream, check_batch, check_context, wait_for_turn
from pat_core.llm.types import Event, LLMError, Request
from pat_core.types import Prompt, Role

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedModel


def open_transformers(
    model: str, device: str = "", quant: str = "", threads: int = 2, adapters: Mapping[Role, Path] | None = None, name: str = ""
) -> TransformersEngine:
    """``model`` is a hub id or a folder; ``device`` '' is cuda where present, else cpu; ``quant`` '', nf4 or int8.

    float32 on a CPU, bfloat16 elsewhere. Never runs code from a model's repository and reads safetensors only. Raises ValueError for a
    model, device or adapter that cannot be used.
    """
    import torch

    torch.set_num_threads(threads)
    where = _device(device)
    adapters = adapters or {}
    net = _load_model(model, where, quant)
    for role, folder in adapters.items():
        net = _with_adapter(net, role, folder)
    precision = quant or ("float32" if where.type == "cpu" else "bfloat16")
    runs_on = f"CPU, {threads} thread{'' if threads == 1 else 's'}" if where.type == "cpu" else str(where).upper()
    title = f"{name or model} ({precision}) on transformers, {runs_on}"
    return TransformersEngine(net, _tokenizer(model, net), title, {role: folder.name for role, folder in adapters.items()})


class TransformersEngine:
    """A loaded model. ``adapters`` says which roles have a peft adapter of that name on ``model``, and its version."""

    def __init__(self, model: PreTrainedModel, tokenizer: ChatTokenizer, name: str, adapters: Mapping[Role, str] | None = None) -> None:
        self.name = name
        self.adapters = dict(adapters or {})
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._lock = threading.Lock()

    def prompt(self, messages: Sequence[tuple[str, str]], prefix: str = "") -> Prompt:
        return self._tokenizer.prompt(messages, prefix)

    def n_tokens(self, text: str) -> int:
        return self._tokenizer.n_tokens(text)

    def truncate(self, text: str, max_tokens: int) -> str:
        return self._tokenizer.truncate(text, max_tokens)

    def generate(self, requests: Sequence[Request], cancel: threading.Event | None = None) -> Iterator[Event]:
        """See ``LLM.generate``. Batches of several threads run one after another."""
        check_batch(requests)
        check_context(requests, self._model.config.get_text_config().max_position_embeddings)
        return self._generate(requests, cancel or threading.Event())

    def _generate(self, requests: Sequence[Request], cancel: threading.Event) -> Iterator[Event]:
        if not wait_for_turn(self._lock, cancel):
            yield from (Event(r.key, "", 0, "cancelled") for r in requests)
            return
        try:
            groups = [_Group(self._model, role, rows, self._tokenizer) for role, rows in self._by_role(requests).items()]
            while groups:
                for group in groups:
                    if cancel.is_set():
                        group.end("cancelled")
                    else:
                        with self._role(group.role):
                            group.step()
                    for stream in group.streams:
                        if event := stream.news():
                            yield event
                    group.drop_ended()
                groups = [g for g in groups if g.streams]
        except RuntimeError as error:  # torch's class for running out of memory and for kernels that fail
            raise LLMError(f"the model could not go on ({error}). Use shorter texts, fewer drafts, or a smaller PAT_MODEL") from error
        finally:
            self._lock.release()

    def _by_role(self, requests: Sequence[Request]) -> dict[str, list[Request]]:
        groups: dict[str, list[Request]] = {}
        for r in requests:
            groups.setdefault(r.role if r.role in self.adapters else "base", []).append(r)
        return groups

    def _role(self, role: str):
        """A context in which the model has this role's adapter, or none."""
        if not self.adapters:
            return nullcontext()
        if role == "base":
            return self._model.disable_adapter()
        self._model.set_adapter(role)
        return nullcontext()


class _Group:
    """Requests that run in one batch under one adapter; rows leave it as they end."""

    def __init__(self, model: PreTrainedModel, role: str, requests: Sequence[Request], tokenizer: ChatTokenizer) -> None:
        import torch

        self.role = role
        self.streams = [TextStream(r, tokenizer) for r in requests]
        self._model = model
        self._end_ids = torch.tensor(sorted(tokenizer.end_ids))
        self._generators = [torch.Generator().manual_seed(r.seed % 2**63) for r in requests]
        self._prompts = [torch.tensor(r.prompt.token_ids) for r in requests]
        self._written: list[list[int]] = [[] for _ in requests]
        longest = max(len(p) for p in self._prompts)
        self._mask = torch.stack([torch.nn.functional.pad(torch.ones_like(p), (longest - len(p), 0)) for p in self._prompts])
        self._ids = torch.stack([torch.nn.functional.pad(p, (longest - len(p), 0)) for p in self._prompts])
        self._cache = None

    def step(self) -> None:
        """One token for every row."""
        import torch

        with torch.inference_mode():
            logits = self._forward()
            chosen = [
                _choose(logits[i], stream.request, self._prompts[i], self._written[i], self._end_ids, self._generators[i])
                for i, stream in enumerate(self.streams)
            ]
        for stream, written, token in zip(self.streams, self._written, chosen, strict=True):
            written.append(token)
            stream.push(token)
        self._ids = torch.tensor(chosen)[:, None]
        self._mask = torch.cat([self._mask, torch.ones_like(self._ids)], dim=1)

    def _forward(self) -> torch.Tensor:
        """(rows, vocabulary) float32 logits on the CPU for the next token."""
        device = self._model.device
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -self._ids.shape[1] :]
        out = self._model(
            input_ids=self._ids.to(device),
            attention_mask=self._mask.to(device),
            position_ids=positions.to(device),
            past_key_values=self._cache,
            use_cache=True,
            **({"logits_to_keep": 1} if _keeps_last(self._model) else {}),
        )
        self._cache = out.past_key_values
        return out.logits[:, -1].float().cpu()

    def end(self, finish: str) -> None:
        for stream in self.streams:
            stream.end(finish)

    def drop_ended(self) -> None:
        """Take rows that have ended out of the batch and its cache."""
        import torch

        kept = [i for i, stream in enumerate(self.streams) if not stream.finish]
        if len(kept) == len(self.streams):
            return
        self.streams = [self.streams[i] for i in kept]
        if not kept:
            return
        self._generators = [self._generators[i] for i in kept]
        self._prompts = [self._prompts[i] for i in kept]
        self._written = [self._written[i] for i in kept]
        rows = torch.tensor(kept)
        self._ids, self._mask = self._ids[rows], self._mask[rows]
        self._cache.batch_select_indices(rows.to(self._model.device))


def _choose(
    logits: torch.Tensor, request: Request, prompt: torch.Tensor, written: list[int], end_ids: torch.Tensor, generator: torch.Generator
) -> int:
    """The next token of one row: penalties, then temperature, then the smallest set of tokens with ``top_p`` of the mass, then a draw.

    The repetition penalty looks at prompt and text, the frequency penalty (subtracted once per occurrence) at the text only, as in vLLM.
    """
    import torch

    sampling = request.sampling
    new = torch.tensor(written, dtype=torch.long)
    if sampling.repetition_penalty != 1.0:
        seen = torch.cat([prompt, new]).unique()
        logits[seen] = torch.where(logits[seen] > 0, logits[seen] / sampling.repetition_penalty, logits[seen] * sampling.repetition_penalty)
    if sampling.frequency_penalty:
        logits -= sampling.frequency_penalty * torch.bincount(new, minlength=len(logits))
    if len(written) < request.min_new_tokens:
        logits[end_ids] = -torch.inf
    if sampling.temperature == 0:
        return int(logits.argmax())
    shares, order = (logits / sampling.temperature).softmax(-1).sort(descending=True)
    shares[shares.cumsum(-1) - shares >= sampling.top_p] = 0
    return int(order[torch.multinomial(shares, 1, generator=generator)])


def _keeps_last(model: PreTrainedModel) -> bool:
    """Whether the model can compute the last position's logits alone (peft's wrapper hides the base model's signature)."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(inner.forward).parameters


def _device(device: str) -> torch.device:
    import torch

    try:
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"PAT_DEVICE={device!r} is not known; use cpu, cuda, cuda:1 or mps, or leave it empty") from error
    if where.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"PAT_DEVICE={device!r}, but this torch sees no CUDA device; use PAT_DEVICE=cpu or install torch with CUDA")
    return where


def _quantization(quant: str, where: torch.device) -> BitsAndBytesConfig | None:
    if not quant:
        return None
    import torch
    from transformers import BitsAndBytesConfig

    if where.type != "cuda":
        raise ValueError(f"PAT_QUANT={quant!r} runs through bitsandbytes on CUDA, and this model goes to {where}; leave PAT_QUANT empty")
    if quant == "nf4":
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    return BitsAndBytesConfig(load_in_8bit=True)


def _load_model(model: str, where: torch.device, quant: str) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    quantization = _quantization(quant, where)
    try:
        net = AutoModelForCausalLM.from_pretrained(
            model,
            dtype=torch.float32 if where.type == "cpu" else torch.bfloat16,
            quantization_config=quantization,
            device_map={"": where} if quantization else None,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"PAT_MODEL={model!r} cannot be loaded: {reason} Use embedded, a hub id such as HuggingFaceTB/SmolLM2-360M-Instruct "
            "(the first load needs the network), a folder with config.json and safetensors, or a .gguf file"
        ) from error
    return net if quantization else net.to(where)


def _tokenizer(model: str, net: PreTrainedModel) -> ChatTokenizer:
    ends = net.generation_config.eos_token_id if net.generation_config else None
    return ChatTokenizer.from_folder(model, ends if isinstance(ends, list) else [] if ends is None else [ends])


def _with_adapter(net: PreTrainedModel, role: Role, folder: Path) -> PreTrainedModel:
    """``net`` with the adapter in ``folder`` under the name ``role``; peft loads foreign and damaged ones in silence, so it is checked."""
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file

    path = folder / "adapter_model.safetensors"
    if not path.is_file() or not (folder / "adapter_config.json").is_file():
        raise ValueError(f"{folder} is not an adapter: it needs adapter_config.json and adapter_model.safetensors")
    if isinstance(net, PeftModel):
        net.load_adapter(str(folder), adapter_name=role)
    else:
        net = PeftModel.from_pretrained(net, str(folder), adapter_name=role)
    stored, held = load_file(path), get_peft_model_state_dict(net, adapter_name=role)
    if stored.keys() != held.keys() or not all(torch.isfinite(t).all() for t in stored.values()):
        raise ValueError(f"adapter {folder} does not fit this model or is damaged; train it again on this model")
    return net
