"""A random Llama of two layers that writes words of a small vocabulary, for tests that train in seconds."""

from __future__ import annotations

from pathlib import Path

WORDS = (
    "warm", "loud", "quiet", "clean", "cheap", "old", "bright", "staff", "bed", "view", "pool", "street", "breakfast", "coffee",
    "and", "with", "kind.", "slow.", "great.", "fine.", "cold.", "nice.", "far.", "small.",
)  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }} <|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)


def save_tiny_model(folder: Path) -> Path:
    """The model with its tokenizer in ``folder``; words it does not know are one token."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = ["<unk>", "system", "user", "assistant", "Evidence:", *WORDS]
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"unk_token": "<unk>", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, chat_template=TEMPLATE, **special)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.1, **shape)).save_pretrained(folder)
    return folder
