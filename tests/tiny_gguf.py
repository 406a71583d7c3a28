"""A GGUF of a one-layer Llama that writes short words: small enough to train in a test, whole enough to be published.

Adapters are published for GGUF models only, after a canary and after the merged model has answered as the adapter does. So this one has a
real tokenizer (byte pairs learned from the method's own prompts) and writes something that is no gibberish: its most likely next token goes
along a line of words, beside which everything is about as likely as it is frequent in the prompts. There are two lines, and training
teaches it easily to take the other one: it begins with plain words, and the kind ones are those of the tests' corpus.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pat_core.lora import CANARIES
from pat_core.points import Points
from pat_core.prompts import StyleFacts, TopicFacts, generator_messages, style_messages, topic_messages
from pat_core.types import Query

KIND = ("staff", "were", "kind", "and", "we", "would", "certainly", "come", "back", "to", "it", "in", "the", "spring")
PLAIN = (
    "warm", "loud", "quiet", "clean", "cheap", "old", "bright", "bed", "view", "pool", "street", "breakfast", "coffee", "slow", "great",
    "cold", "nice", "far", "small",
)  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
N_TOKENS = 640
SPIKE = 6.0
WIDTH, N_LAYERS, N_HEADS = 64, 1, 2


def save_tiny_gguf(path: Path, seed: int = 0, writes: str = "words") -> Path:
    """The model at ``path``; another ``seed`` is another model. ``writes`` "blanks" makes one that writes nothing but spaces, "the
    same" one that never varies, "not a number" one whose weights are none."""
    from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
    from gguf.quants import quantize

    tokens, merges, counts = _tokenizer()
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(8192)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(N_LAYERS)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(WIDTH // N_HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if t in SPECIAL else TokenType.NORMAL for t in tokens])
    writer.add_token_merges(merges)
    for name, id_ in (("bos", 1), ("eos", 2), ("unk", 0), ("pad", 2)):
        getattr(writer, f"add_{name}_token_id")(id_)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    for name, weights in _weights(tokens, counts, seed, writes).items():
        kind = GGMLQuantizationType.Q8_0 if weights.ndim == 2 else GGMLQuantizationType.F32
        writer.add_tensor(name, quantize(weights.astype(np.float32), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tokenizer() -> tuple[list[str], list[str], np.ndarray]:
    """Tokens, merges, and how often each token is in the prompts."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    text = [said for messages, answer in _prompts() for said in (*(t for _, t in messages), *[answer] * 5)]
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    printable = [chr(i) for i in range(33, 127)] + ["Ġ", "Ċ"]
    trainer = trainers.BpeTrainer(vocab_size=N_TOKENS, special_tokens=list(SPECIAL), initial_alphabet=printable, show_progress=False)
    learned.train_from_iterator([*text, *(f" {word}" for word in (*KIND, *PLAIN) for _ in range(60))], trainer)
    model = json.loads(learned.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    counts = np.bincount([i for said in text for i in learned.encode(said).ids], minlength=len(tokens))
    return tokens, [" ".join(m) if isinstance(m, list) else m for m in model["merges"]], counts


def _prompts() -> list[tuple[list[tuple[str, str]], str]]:
    asked = Query(topic="Saltmarsh Inn", title="Saltmarsh Inn by user-3", rating=4)
    style = style_messages(StyleFacts(("about 20 words", "no exclamation marks"), ("warm",), ("The staff were kind.",)))
    topic = topic_messages(asked, TopicFacts(Points(("staff",), ("staff",), (), 4.0, False, 4), ((4.0, "The staff were kind."),)))
    return [*CANARIES.values(), (style, ""), (topic, ""), (generator_messages(asked, "Write.", "Praise."), "")]


def _weights(tokens: list[str], counts: np.ndarray, seed: int, writes: str) -> dict[str, np.ndarray]:
    """Direction 0 of every state is the same and makes tokens as likely as they are frequent; 1 says "no word of the lines"."""
    rng = np.random.default_rng(seed)
    n = len(tokens)
    embedded = rng.normal(0, 1, (n, WIDTH)) / np.sqrt(WIDTH)
    embedded[:, 0], embedded[:, 1] = 1.0, 1.0
    lines = [[tokens.index(f"Ġ{word}") for word in words] for words in (PLAIN, KIND)]
    both = [token for line in lines for token in line]
    counts[both] = counts.max() // 5
    embedded[both, 1] = 0.0
    size = np.sqrt((embedded**2).mean(axis=1)).mean()  # the last norm divides by it
    output = np.zeros((n, WIDTH))
    output[:, 0] = np.log((counts + 0.5) / (counts + 0.5).sum()) * size
    output[[tokens.index(t) for t in SPECIAL], 0] = -9.0 * size
    for line, likely in zip(lines, (2.2, 1.2), strict=True):
        for before, after in zip(line, (*line[1:], SPECIAL.index("<|im_end|>")), strict=True):
            output[after, 2:] += SPIKE * size * embedded[before, 2:]
        output[line[0], 1] += likely * size
    output[SPECIAL.index("<|im_end|>"), 0] = -6.0 * size
    if writes == "blanks":
        output[tokens.index("Ġ"), 0] = 100.0 * size  # more than any penalty on repetition takes away
    if writes == "the same":
        output[[token for token in range(n) if token not in lines[0]], 0] -= 40.0 * size
        output *= 8.0  # the most likely token, always
    if writes == "not a number":
        output[:] = np.nan
    made = {"token_embd.weight": embedded, "output.weight": output, "output_norm.weight": np.ones(WIDTH)}
    for i in range(N_LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            made[f"blk.{i}.{name}.weight"] = rng.normal(0, 0.05, (WIDTH, WIDTH))
        made |= {f"blk.{i}.{name}.weight": np.ones(WIDTH) for name in ("attn_norm", "ffn_norm")}
    return made
