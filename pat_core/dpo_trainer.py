"""TRL's DPO trainer for weighted pairs with soft labels (DPO, arXiv 2305.18290; method: DPO rounds).

loss = sum_i -w_i [ q_i log sig(z_i) + (1 - q_i) log sig(-z_i) ] / (n W) over the n pairs of one update, on all processes, where W is the
mean weight of all pairs and z = beta [ log p(chosen) / ref(chosen) - log p(rejected) / ref(rejected) ]. With q = w = 1 this is TRL's loss.
W, and not the weights of the update itself: else an update of nothing but light pairs would move the adapter as far as one of heavy pairs,
and one person's thousands of votes, capped as they are, would outweigh everybody's. Two things are done otherwise than in TRL for speed:
chosen and rejected stand behind one prompt in one row, where neither sees the other, so a long prompt is computed once (prefix sharing,
arXiv 2410.20305); and logits are computed from the prompt's end on. The tokens, the reference (a copy of the adapter), checkpoints and the
loop are TRL's and transformers'. Leaves out other losses, evaluation, and models that do not attend (recurrent ones).
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, pad
from trl import DPOTrainer
from trl.trainer.utils import use_adapter

from pat_core.cache import seal

Watch = Callable[[str, int, int, Sequence[Mapping[str, float]]], None]  # (stage, tokens done, tokens in all, log rows); may raise to stop
MEASURES = ("margin", "accuracy", "kl", "chosen_tokens", "rejected_tokens")


def pair_losses(z: Tensor, q: Tensor) -> Tensor:
    """The loss of each pair of logit ``z``, of which chosen is really preferred with probability ``q``."""
    return -(q * logsigmoid(z) + (1 - q) * logsigmoid(-z))


def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Rows of token ids as one batch: prompt, chosen, rejected behind each other, chosen hidden from rejected.

    Per pair, with sides (chosen, rejected) and ``width`` tokens of the longest text: ``predicted_from`` (n, 2, width), the position whose
    logits predict a token; ``targets``, that token; ``is_text``, whether there is one. ``reference`` (n, 2, width) where rows have it.
    """
    n, width = len(rows), max(len(text) for row in rows for text in (row["chosen_ids"], row["rejected_ids"]))
    length = max(len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows)
    ids, positions = torch.zeros(n, length, dtype=torch.long), torch.zeros(n, length, dtype=torch.long)
    visible = torch.ones(length, length, dtype=torch.bool).tril().repeat(n, 1, 1, 1)  # padding stands last, so no text sees it
    predicted_from, targets = torch.zeros(n, 2, width, dtype=torch.long), torch.zeros(n, 2, width, dtype=torch.long)
    is_text = torch.zeros(n, 2, width, dtype=torch.bool)
    for i, row in enumerate(rows):
        prompt, sides = row["prompt_ids"], (row["chosen_ids"], row["rejected_ids"])
        start, middle = len(prompt), len(prompt) + len(sides[0])
        end = middle + len(sides[1])
        ids[i, :end] = torch.tensor([*prompt, *sides[0], *sides[1]])
        positions[i, :end] = torch.cat([torch.arange(middle), torch.arange(start, start + len(sides[1]))])
        visible[i, 0, middle:end, start:middle] = False
        predicted_from[i] = start - 1  # of both first tokens
        for side, (text, at) in enumerate(zip(sides, (start, middle), strict=True)):
            predicted_from[i, side, 1 : len(text)] = torch.arange(at, at + len(text) - 1)
            targets[i, side, : len(text)] = torch.tensor(text)
            is_text[i, side, : len(text)] = True
    batch = {"input_ids": ids, "attention_mask": visible, "position_ids": positions}
    batch |= {"predicted_from": predicted_from, "targets": targets, "is_text": is_text}
    batch |= {name: torch.tensor([float(row[name]) for row in rows]) for name in ("weight", "q")}
    if "ref_chosen_logps" in rows[0]:
        sides = [[row[name][:width] for name in ("ref_chosen_logps", "ref_rejected_logps")] for row in rows]
        batch["reference"] = torch.tensor(sides)
    return batch


class WeightedDPOTrainer(DPOTrainer):
    """See the module. ``train_dataset`` has TRL's conversational columns, ``weight`` and ``q``; ``model`` is a PeftModel whose adapter
    ``default`` is trained. ``args`` must have precompute_ref_log_probs. Pairs of which the prompt and the longer text exceed
    ``max_tokens`` are left out and counted in ``n_too_long``. Raises FloatingPointError where the loss is not a number.
    """

    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, max_tokens: int, watch: Watch, **more: Any) -> None:
        self._max_tokens, self._watch = max_tokens, watch
        self.n_too_long = self.n_tokens = self._reference_done = self._tokens = 0
        self._loss = [0.0, 0.0]  # of the update at work: weighted losses, weights
        self._since = time.monotonic()
        super().__init__(*args, data_collator=collate, **more)

    def _prepare_dataset(self, dataset: Any, *more: Any) -> Any:
        dataset = super()._prepare_dataset(dataset, *more)
        sizes = [(len(r["prompt_ids"]), len(r["chosen_ids"]), len(r["rejected_ids"])) for r in dataset]
        kept = [i for i, (prompt, *texts) in enumerate(sizes) if prompt + max(texts) <= self._max_tokens]
        if not kept:
            raise ValueError(f"each of the {len(sizes)} pairs is longer than {self._max_tokens} tokens; allow more, or shorten the prompts")
        self.n_too_long = len(sizes) - len(kept)
        self.n_tokens = sum(sum(sizes[i]) for i in kept)
        self._width = max(max(sizes[i][1:]) for i in kept)
        self._mean_weight = sum(dataset[i]["weight"] for i in kept) / len(kept)
        return dataset.select(kept)

    def _set_signature_columns_if_needed(self) -> None:
        if self._signature_columns is None:
            super()._set_signature_columns_if_needed()
            self._signature_columns += ["weight", "q"]

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Log-probabilities of chosen and of rejected by the reference, (n, longest text of all) each: TRL keeps them beside the rows."""
        with torch.no_grad(), use_adapter(self.accelerator.unwrap_model(self.model), "ref"), self.accelerator.autocast():
            found = self._log_probs(model, inputs)
        self._reference_done += int(self._gathered_tokens(inputs))
        self._watch("reference", self._reference_done, self.n_tokens, ())
        chosen, rejected = pad(found, (0, self._width - found.shape[-1])).unbind(1)
        return chosen, rejected

    def _log_probs(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """(n, 2, width) log-probability of each token of both texts, 0 where there is none."""
        at, length = inputs["predicted_from"], inputs["input_ids"].shape[1]
        kept = length - int(at.min())
        keeps = "logits_to_keep" in inspect.signature(type(self.accelerator.unwrap_model(model).get_base_model()).forward).parameters
        logits = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            position_ids=inputs["position_ids"],
            use_cache=False,
            **({"logits_to_keep": kept} if keeps else {}),
        ).logits[:, -kept:]
        logits = logits.float()
        rows, at = torch.arange(len(at), device=at.device)[:, None, None], at - (length - kept)
        found = logits[rows, at, inputs["targets"]] - logits.logsumexp(-1)[rows, at]
        return found.masked_fill(~inputs["is_text"], 0)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> tuple[list[Any], Tensor]:
        """The batches of one update, and what their weighted losses are divided by: its pairs on all processes times the mean weight."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        n_pairs = torch.tensor([float(sum(len(b["weight"]) for b in batches))], device=device)
        return batches, self.accelerator.gather(n_pairs).sum() * self._mean_weight

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Any:
        """This batch's share of its update's loss; ``num_items_in_batch`` is of ``get_batch_samples``, None for the batch's weights."""
        ratio = self._log_probs(model, inputs) - inputs["reference"]
        z = self.beta * (ratio[:, 0].sum(-1) - ratio[:, 1].sum(-1))
        total = inputs["weight"].sum() if num_items_in_batch is None else num_items_in_batch
        losses = inputs["weight"] * pair_losses(z, inputs["q"])
        loss = losses.sum() / total * self.accelerator.num_processes  # gradients of several processes are averaged
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss became {loss.item()} at step {self.state.global_step + 1}")
        self._measure(ratio.detach(), z.detach(), losses.detach(), inputs)
        return (loss, {"z": z.detach()}) if return_outputs else loss

    def _measure(self, ratio: Tensor, z: Tensor, losses: Tensor, inputs: dict[str, Tensor]) -> None:
        """Notes the batch's ``MEASURES`` and weighted losses. kl: Schulman's estimate of KL(reference || policy) in nats a token, the mean
        of p / ref - 1 - log(p / ref) over the pairs' own tokens; it takes them for the reference's, which wrote the
        rollouts, and is far too high where a summary written from a part of the facts is improbable from all of them."""
        is_text = inputs["is_text"]
        chosen, rejected = is_text.sum(-1).float().mean(0)
        kl = (ratio.exp() - 1 - ratio).sum() / is_text.sum()
        found = torch.stack([z.mean(), (z > 0).float().mean(), kl, chosen, rejected])
        for name, value in zip(MEASURES, self.accelerator.gather(found[None]).mean(0).tolist(), strict=True):
            self._metrics["train"][name].append(value)
        sums = self.accelerator.gather(torch.stack([losses.sum(), inputs["weight"].sum()])[None]).sum(0).tolist()
        self._loss = [a + b for a, b in zip(self._loss, sums, strict=True)]
        self._tokens += int(self._gathered_tokens(inputs))
        self._tell()

    def _tell(self) -> None:
        whole = int(self.n_tokens * self.args.num_train_epochs)
        done = self._tokens + sum(int(row.get("tokens", 0)) for row in self.state.log_history)
        self._watch("training", min(done, whole), whole, self.state.log_history)

    def _gathered_tokens(self, inputs: dict[str, Tensor]) -> float:
        own = inputs["is_text"].sum() + (inputs["predicted_from"][:, 0, 0] + 1).sum()
        return self.accelerator.gather(own[None]).sum().item()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the tokens and seconds of this update to its row, with the weighted mean of its losses, and tells of it."""
        update = "loss" in logs
        if update:
            now = time.monotonic()
            logs |= {"tokens": self._tokens, "seconds": now - self._since, "loss": self._loss[0] / self._loss[1]}
            self._tokens, self._since, self._loss = 0, now, [0.0, 0.0]
        super().log(logs, start_time)
        if update:
            self._tell()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Seals the checkpoint, so that one that was damaged is told from a whole one."""
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            seal(Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}")

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Without the tokenizer, which is the base's: megabytes beside each checkpoint, and its writer reports a full disk as Exception."""
        tokenizer, self.processing_class = self.processing_class, None
        try:
            super()._save(output_dir, state_dict)
        finally:
            self.processing_class = tokenizer

    def create_model_card(self, *args: Any, **more: Any) -> None:
        """Writes none beside the checkpoints: the manifest of a published version says what it is."""
