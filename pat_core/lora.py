"""Whether an adapter may serve at all: a plain, complete, finite LoRA; one that still writes; one whose merged model writes as it does.

peft loads without a word what is NaN, cut in half, of another model or scaled by a billion, so each of these is looked for here. No model
is loaded: what needs one is given as functions, ``write`` and ``score``. Leaves out hashes and versions (``adapters``), and whether the
shapes fit the base model, which loading and merging see.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pat_core.points import Points
from pat_core.prompts import Messages, StyleFacts, TopicFacts, generator_messages, style_messages, topic_messages
from pat_core.types import Query, Role

Write = Callable[[Messages], str]  # a model's greedy answer to a chat
Score = Callable[[Messages, str], float]  # mean log-probability of an answer's tokens, in nats

CONFIG, WEIGHTS = FILES = ("adapter_config.json", "adapter_model.safetensors")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")  # formats that run code when they are read
LARGEST_SCALE = 64.0  # alpha / rank; 2 in ours
LARGEST_WEIGHT = 100.0  # ours stay below 0.1
LARGEST_RANK = 512
LOWEST_SCORE = -6.0  # nats a token that a fixed, ordinary answer may cost: an untrained 135M model pays 2 to 3, guessing evenly 10.8
LARGEST_GAP = 0.5  # nats a token by which what the merged model writes may be less likely than what the adapter writes
_SPECIAL = (
    "use_dora", "use_rslora", "alpha_pattern", "rank_pattern", "modules_to_save", "fan_in_fan_out", "lora_bias", "layer_replication",
    "trainable_token_indices", "target_parameters", "use_bdlora", "use_qalora", "alora_invocation_tokens",
)  # fmt: skip
_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.weight")
_WORD = re.compile(r"[^\W\d_]+")


class AdapterError(ValueError):
    """An adapter version that must not be served, or cannot be found; the message says what is wrong."""


def check_lora(folder: Path) -> None:
    """Raises AdapterError unless the PEFT folder holds a plain LoRA: complete, of one rank, finite, and of a scale that makes sense.

    Whether it fits the base model is seen when it is loaded or merged.
    """
    config = read_config(folder)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    special = [name for name in _SPECIAL if config.get(name)]
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or special:
        raise AdapterError(f"{folder.name} is not a plain LoRA ({', '.join(special) or config.get('peft_type')})")
    if not isinstance(rank, int) or not 1 <= rank <= LARGEST_RANK:
        raise AdapterError(f"{folder.name} has rank {rank!r}; from 1 to {LARGEST_RANK} make sense")
    if not isinstance(alpha, int | float) or not 0 < alpha <= LARGEST_SCALE * rank:
        raise AdapterError(f"{folder.name} has alpha {alpha!r}; above 0 and at most {LARGEST_SCALE:g} times the rank {rank} make sense")
    _check_tensors(folder, rank, config.get("target_modules"))


def _check_tensors(folder: Path, rank: int, targets: object) -> None:
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{folder.name} is damaged: {WEIGHTS} cannot be read ({error})") from error
    modules: dict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None or tensor.ndim != 2 or (tensor.shape[0] if match["half"] == "A" else tensor.shape[1]) != rank:
            raise AdapterError(f"{folder.name} does not fit: {name} of shape {tensor.shape} is no half of a LoRA of rank {rank}")
        largest = np.abs(tensor.astype(np.float32)).max(initial=0.0)
        if not largest <= LARGEST_WEIGHT:
            raise AdapterError(f"{folder.name} is damaged: {name} holds {largest}; weights up to {LARGEST_WEIGHT:g} make sense")
        modules[match["module"]][match["half"]] = tensor.shape
    _check_complete(folder, modules, targets)


def _check_complete(folder: Path, modules: Mapping[str, Mapping[str, tuple[int, ...]]], targets: object) -> None:
    """Both halves of every module, every target module in every layer, and the same shapes in all layers."""
    if not modules:
        raise AdapterError(f"{folder.name} is empty")
    halves = [module for module, found in modules.items() if len(found) != 2]
    if halves:
        raise AdapterError(f"{folder.name} is damaged: {halves[0]} lacks its other half")
    layers: dict[str, dict[int, Any]] = defaultdict(dict)
    for module, found in modules.items():
        kind = re.sub(r"\.\d+\.", ".*.", module, count=1)
        number = re.search(r"\.(\d+)\.", module)
        layers[kind][int(number[1]) if number else 0] = (found["A"], found["B"])
    n_layers = max(max(found) for found in layers.values()) + 1
    for kind, found in layers.items():
        if len(found) != n_layers or len(set(found.values())) != 1:
            raise AdapterError(f"{folder.name} is damaged: {kind} is there in {len(found)} of {n_layers} layers, in one shape or several")
    wanted = sorted(targets) if isinstance(targets, list) else []
    absent = [name for name in wanted if not any(f".{module}".endswith(f".{name}") for module in modules)]
    if absent:
        raise AdapterError(f"{folder.name} is damaged: it has no weights for {absent[0]}")


def read_config(folder: Path) -> dict[str, Any]:
    """The adapter's config; AdapterError where it is none."""
    try:
        value = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{folder.name} is damaged: {CONFIG} cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise AdapterError(f"{folder.name} is damaged: {CONFIG} is not a JSON object")
    return value


def refuse_pickles(folder: Path) -> None:
    """Raises AdapterError where any file in the folder is of a format that can run code."""
    for path in folder.rglob("*"):
        if path.suffix.lower() in PICKLES:
            raise AdapterError(f"{folder.name} holds {path.name}, a format that can run code; only safetensors are taken")


# Examining


def canary(role: Role, write: Write, score: Score) -> dict[str, Any]:
    """Lets the adapter of ``role`` answer one fixed prompt, and asks how likely it finds an ordinary answer; what came out.

    Raises AdapterError where the answer is empty or gibberish, or the likelihood is not a number or below ``LOWEST_SCORE``.
    """
    messages, ordinary = CANARIES[role]
    text, value = write(messages), score(messages, ordinary)
    wrong = gibberish(text)
    if wrong:
        raise AdapterError(f"the adapter for {role} failed its canary: its answer {text!r:.80} {wrong}")
    if not value >= LOWEST_SCORE:  # NaN compares false
        raise AdapterError(f"the adapter for {role} failed its canary: an ordinary answer has a mean log-probability of {value:.2f}")
    return {"canary": text, "canary_log_prob": round(value, 4)}


def check_served(write_adapter: Write, score_adapter: Score, write_served: Write, prompts: Sequence[Messages]) -> dict[str, Any]:
    """Holds the merged model's greedy answers against the adapter's; what came out.

    Rounding to eight bits turns a near tie of two tokens now and then, and the texts part there; so where they differ, the served text must
    be nearly as likely to the adapter as its own. Raises AdapterError where it is less likely by ``LARGEST_GAP`` or is gibberish.
    """
    equal, gaps = 0, [0.0]
    for messages in prompts:
        own, served = write_adapter(messages), write_served(messages)
        if own == served:
            equal += 1
            continue
        wrong = gibberish(served)
        if wrong and not gibberish(own):
            raise AdapterError(f"the merged model is not the adapter: its answer {served!r:.80} {wrong}")
        gap = score_adapter(messages, own) - score_adapter(messages, served)
        if not gap <= LARGEST_GAP:
            raise AdapterError(
                f"the merged model is not the adapter: it writes {served!r:.60}, the adapter {own!r:.60} ({gap:.2f} nats a token)"
            )
        gaps.append(gap)
    return {"served_equal": equal, "served_asked": len(prompts), "served_gap": round(max(gaps), 4)}


def gibberish(text: str) -> str:
    """What is wrong with a text that no working model writes, '' for nothing."""
    words = [w.lower() for w in _WORD.findall(text)]
    solid = "".join(text.split())
    if not words:
        return "has no word"
    if "\ufffd" in text or "<|" in text:
        return "holds control tokens or broken characters"
    if sum(map(str.isalpha, solid)) < len(solid) / 2:
        return "is mostly not letters"
    if max(map(len, words)) > 45:
        return "holds an endless word"
    if len(words) >= 8 and len(set(words)) < len(words) / 4:
        return "repeats itself"
    return ""


_ASKED = Query(topic="Hotel Adler", title="Two nights by the station", rating=4)
_STYLE = "Similar writers use about 30 words, no exclamation marks and we. They sound plain. Write about 30 words, say we."
_TOPIC = "Reviewers mention the breakfast and the noise. Praise the breakfast, and mention the noise."
_STYLE_FACTS = StyleFacts(("about 30 words", "no exclamation marks", "first person (we)"), ("plain", "friendly"))
_TOPIC_FACTS = TopicFacts(Points(("breakfast", "noise", "staff"), ("breakfast", "staff"), ("noise",), 4.0, False, 4))
CANARIES: Mapping[Role, tuple[Messages, str]] = {
    "style": (
        style_messages(_STYLE_FACTS, shots=False),
        "Evidence: Similar writers use about 30 words, no exclamation marks and first person (we).\n"
        "Inference: This person sounds plain and friendly, and says: nothing yet.\nGuidance: Write about 30 words, say we, no exclamation marks.",
    ),
    "topic": (
        topic_messages(_ASKED, _TOPIC_FACTS, shots=False),
        "Evidence: Reviewers mention the breakfast, the noise and the staff.\n"
        "Inference: They like the breakfast and the staff, and dislike the noise.\nGuidance: Praise the breakfast and the staff.",
    ),
    "generator": (
        generator_messages(_ASKED, _STYLE, _TOPIC, shots=False),
        "We stayed two nights. The breakfast was good and the staff were friendly, but there was some noise from the station at night.",
    ),
}
