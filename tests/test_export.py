"""What an export holds: the rules from answers to training files, files that datasets, TRL and spreadsheets read, and nothing personal."""

from __future__ import annotations

import csv
import hashlib
import json

import pytest
from store_data import SetClock, answer, fill, offer, person

from annotate import export as export_module
from annotate.card import COLUMNS
from annotate.database import StoreError
from annotate.export import FLAT, Options, export, main
from annotate.sheets import plain
from annotate.store import open_store
from annotate.types import Candidate, Exclusion, Item, Judgment, Pair, new_id, pair_of

PROMPT = [["user", "How would this person write?"]]


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path / "votes.db", clock=SetClock()) as opened:
        yield opened


def completion(agent, text, prefix="", messages=PROMPT):
    return {"role": agent, "messages": messages, "prefix": prefix, "text": text}


def one_factor(store, n=1, agent="style", traces=None, prompt="A hotel in Rome") -> list[Pair]:
    """``n`` one-factor pairs, each of a good text and a bad one, on one item."""
    item = Item(prompt, {"topic": "hotels", "samples": ["Loved it!!"]}, "demo")
    pairs, candidates = [], []
    for i in range(n):
        made = traces or [{"completion": completion(agent, f"{word} {i}", "Evidence:")} for word in ("Evidence: good", " bad")]
        two = [Candidate(item.item_id, f"{word} {agent} {i}", "pat", trace) for word, trace in zip(("good", "bad"), made, strict=True)]
        pairs.append(pair_of(*two, "one-factor", agent=agent))
        candidates += two
    store.add_pairs(pairs, candidates, [item])
    return pairs


def good_id(store, pair):
    lo = store.find(Candidate, candidate_id=pair.lo_id)
    return pair.lo_id if lo.text.startswith("good") else pair.hi_id


def judge(store, pair, who, choice, strength=None, left="good", **details):
    """``choice`` is good, bad or an outcome without a winner; ``left`` says which text stands left."""
    good = good_id(store, pair)
    bad = pair.hi_id if good == pair.lo_id else pair.lo_id
    shown = offer(store, pair, who, good if left == "good" else bad)
    outcome = {left: "A", "bad" if left == "good" else "good": "B"}.get(choice, choice)
    return store.record_judgment(answer(shown, outcome, strength=strength, **details))


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read(folder):
    """Every training file by name, each line with the line of its sidecar."""
    return {
        f"{kind}_{agent}": list(zip(lines(folder / f"{kind}_{agent}.jsonl"), lines(folder / f"{kind}_{agent}_sidecar.jsonl"), strict=True))
        for kind in ("dpo", "soft", "kto")
        for agent in ("style", "topic", "generator")
    }


def exported(store, tmp_path, **options):
    out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
    export(store, out, Options(**options))
    return out


# From answers to training files

CASES = {
    "one clear answer": ([("good", "clearly")], "dpo"),
    "one slight answer": ([("good", "slightly")], "soft"),
    "one answer without a strength": ([("good", None)], "soft"),
    "two slight answers": ([("good", "slightly"), ("good", "slightly")], "dpo"),
    "opposite answers": ([("good", "clearly"), ("bad", "clearly")], "soft"),
    "a clear answer against a slight one": ([("good", "clearly"), ("bad", "slightly")], "soft"),
    "a tie": ([("tie", None)], "kto"),
    "both bad": ([("both_bad", None)], "kto"),
    "as often both good as both bad": ([("tie", None), ("both_bad", None)], ""),
    "cannot judge": ([("cannot_judge", None)], ""),
    "two clear answers and a tie": ([("good", "clearly"), ("good", "clearly"), ("tie", None)], "dpo"),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_which_file_a_pair_goes_to(case, store, tmp_path):
    answers, expected = CASES[case]
    [pair] = one_factor(store)
    for i, (choice, strength) in enumerate(answers):
        judge(store, pair, person(store, f"P{i}"), choice, strength, left="good" if i % 2 else "bad")
    found = {name: rows for name, rows in read(exported(store, tmp_path)).items() if rows}
    assert list(found) == ([f"{expected}_style"] if expected else [])


def test_a_preference_holds_the_chat_the_prefix_once_and_what_is_behind_it(store, tmp_path):
    [pair] = one_factor(store, agent="topic")
    ada, bob = person(store), person(store, "Bob")
    judge(store, pair, ada, "good", "clearly", dims={"style": "A", "topic": "B", "fluency": "same"})
    judge(store, pair, bob, "good", "slightly", left="bad", dims={"style": "B"})
    [(row, behind)] = read(exported(store, tmp_path))["dpo_topic"]
    assert row["prompt"] == [{"role": "user", "content": PROMPT[0][1]}]
    assert row["chosen"] == [{"role": "assistant", "content": "Evidence: good 0"}]
    assert row["rejected"] == [{"role": "assistant", "content": "Evidence: bad 0"}]
    assert row["weight"] == behind["weight"] == pytest.approx(2 * behind["p_chosen"] - 1, abs=1e-4)
    assert behind["p_lo"] < behind["p_chosen"] < behind["p_hi"]
    assert (behind["n_judges"], behind["n_effective"], behind["n_clear"], behind["n_slight"]) == (2, 2, 1, 1)
    assert behind["strength_mean"] == 1.5 and behind["side_balance"] == 0.5
    assert behind["dims"] == {"style": 0.75, "topic": pytest.approx(1 / 3, abs=1e-4), "fluency": 0.5}
    assert behind["pair_id"] == pair.pair_id and behind["chosen_id"] == good_id(store, pair)


def test_half_a_weight_for_one_judge_and_a_soft_label_for_the_uncertain(store, tmp_path):
    first, second = one_factor(store, 2)
    ada = person(store)
    judge(store, first, ada, "good", "clearly")
    judge(store, second, ada, "bad", "slightly", left="bad")
    found = read(exported(store, tmp_path))
    [(clear, behind)], [(slight, _)] = found["dpo_style"], found["soft_style"]
    assert clear["weight"] == pytest.approx((2 * behind["p_chosen"] - 1) / 2, abs=1e-4)
    assert slight["chosen"][0]["content"] == "Evidence: bad 1" and 0.5 < slight["p"] < 0.75


def test_one_person_counts_for_no_more_than_the_cap(store, tmp_path):
    pairs, ada = one_factor(store, 8), person(store)
    for pair in pairs:
        judge(store, pair, ada, "good", "clearly")
    free, capped = exported(store, tmp_path), exported(store, tmp_path, cap=2.0)
    assert {b["n_effective"] for _, b in read(free)["dpo_style"]} == {1.0}
    found = read(capped)
    assert {b["n_effective"] for _, b in found["dpo_style"] + found["soft_style"]} == {0.25}


def test_kto_says_good_of_both_or_bad_of_both(store, tmp_path):
    first, second = one_factor(store, 2)
    ada = person(store)
    judge(store, first, ada, "tie")
    judge(store, second, ada, "both_bad")
    found = read(exported(store, tmp_path))["kto_style"]
    assert {(r["completion"][0]["content"], r["label"]) for r, _ in found} == {
        ("Evidence: good 0", True),
        ("Evidence: bad 0", True),
        ("Evidence: good 1", False),
        ("Evidence: bad 1", False),
    }


def test_what_does_not_count_is_in_no_training_file_and_in_the_card_with_its_reason(store, tmp_path):
    pairs = one_factor(store, 4)
    ada, bot = person(store), person(store, "Bot", kind="llm")
    first = judge(store, pairs[0], ada, "good", "clearly")
    store.exclude(Exclusion("spam | <b>", "owner", judgment_id=first.judgment_id))
    judge(store, pairs[1], bot, "good", "clearly")
    judge(store, pairs[2], ada, "good", "clearly", unblinded=True)
    revised = judge(store, pairs[3], ada, "good", "clearly")
    shown = offer(store, fill(store).pairs[0], ada)
    store.record_judgment(answer(shown, "A"))
    store.revise(
        Judgment(new_id(), *(getattr(revised, n) for n in ("pair_id", "annotator_id", "shown_left_id", "order_key")), "cannot_judge",
                 revision_of=revised.judgment_id)
    )  # fmt: skip
    out = exported(store, tmp_path)
    assert not any(read(out).values())
    card = (out / "README.md").read_text(encoding="utf-8")
    for reason in ("excluded by the owner", "no person (llm)", "saw more than", "revised by a later", "two systems", "cannot judge"):
        assert reason in card
    flat = lines(out / "judgments.jsonl")
    assert [row["current"] for row in flat] == [True, True, True, False, True, True]
    assert flat[0]["excluded"] == ["spam | <b>"] and not flat[0]["counted"] and flat[2]["unblinded"]
    included = read(exported(store, tmp_path, include_unblinded=True))["dpo_style"]
    assert [behind["n_unblinded"] for _, behind in included] == [1]


BAD_TRACES = {
    "no completion": [{}, {}],
    "of another agent": [{"completion": completion("topic", w)} for w in "ab"],
    "another prompt": [{"completion": completion("style", w, messages=[["user", w]])} for w in "ab"],
    "the same": [{"completion": completion("style", "a")}] * 2,
    "a control token": [{"completion": completion("style", w)} for w in ("a", "<|im_start|>system")],
    "not a chat": [{"completion": completion("style", w, messages=[["boss", w], "x"])} for w in "ab"],
    "a number": [{"completion": {"role": "style", "messages": PROMPT, "text": 3}}] * 2,
}


@pytest.mark.parametrize("traces", BAD_TRACES.values(), ids=BAD_TRACES)
def test_a_pair_that_can_teach_nothing_is_counted_not_guessed(traces, store, tmp_path):
    [pair] = one_factor(store, traces=traces)
    judge(store, pair, person(store), "good", "clearly")
    out = exported(store, tmp_path)
    assert not any(read(out).values())
    assert "| on a pair" in (out / "README.md").read_text(encoding="utf-8")


def test_a_swapped_repeat_counts_with_its_original_and_checks_not_at_all(store, tmp_path):
    [pair] = one_factor(store)
    texts = {c.candidate_id: c for c in store.all(Candidate)}
    lo, hi = texts[pair.lo_id], texts[pair.hi_id]
    swap = pair_of(lo, hi, "swap", repeat_of=pair.pair_id)
    broken = Candidate(pair.item_id, "brok", "check-cut")
    gold = pair_of(lo, broken, "gold", expected=pair.lo_id)
    store.add_pairs([swap, gold], [broken])
    ada = person(store)
    judge(store, pair, ada, "good", "slightly", left="good")
    judge(store, swap, ada, "good", "slightly", left="bad")
    store.record_judgment(answer(offer(store, gold, ada, left=pair.lo_id), "A"))
    out = exported(store, tmp_path)
    [(_, behind)] = read(out)["soft_style"]  # one person who says the same twice is still one
    assert (behind["n_judges"], behind["n_chosen"], behind["n_slight"], behind["side_balance"]) == (1, 2, 1, 0.5)
    assert {c["kind"]: c["result"] for c in lines(out / "campaign" / "checks.jsonl")} == {"swap": "ok", "gold": "ok"}


# Who reads the files


def campaign(store):
    """Rows in every file but those of the topic agent."""
    pairs = one_factor(store, 4) + one_factor(store, 4, "generator", prompt="A café")
    people = [person(store, name, perspective="native | <i>") for name in ("Ada", "Bob")]
    for i, pair in enumerate(pairs):
        for who in people[: 1 + i % 2]:
            outcome = ("good", "tie", "both_bad", "good")[i % 4]
            rationale = ("=cmd|'/C calc'!A1", "+1", "-2", "@x", "\tx", "'=x", 'say "hi"; =1')[i % 7]
            judge(store, pair, who, outcome, "clearly" if i == 0 and outcome == "good" else None, rationale=rationale, tags=("a", "b"))
    store.exclude(Exclusion("too fast", "owner", annotator_id=people[1].annotator_id))
    store.exclude(Exclusion("too fast", "owner", annotator_id=people[1].annotator_id, active=False))
    return people


def test_datasets_loads_every_configuration(store, tmp_path):
    from datasets import disable_progress_bars, get_dataset_config_names, load_dataset

    disable_progress_bars()
    campaign(store)
    out = exported(store, tmp_path)
    n = {p.relative_to(out).with_suffix("").as_posix().replace("/", "_"): len(lines(p)) for p in out.rglob("*.jsonl")}
    names = get_dataset_config_names(str(out))
    assert set(names) == {name for name, rows in n.items() if rows} and {"judgments", "dpo_style", "kto_generator"} <= set(names)
    for name in names:
        loaded = load_dataset(str(out), name, split="train", cache_dir=str(tmp_path / "cache"))
        assert loaded.num_rows == n[name]
        assert loaded.column_names and None not in loaded.features
    assert load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache")).column_names == list(FLAT)
    plain_json = load_dataset("json", data_files=str(out / "dpo_style.jsonl"), split="train", cache_dir=str(tmp_path / "cache"))
    assert plain_json[0]["chosen"][0]["role"] == "assistant"


def tiny_tokenizer():
    """Bytes as tokens, with the chat template of the embedded model."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocab = {token: i for i, token in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", additional_special_tokens=special[1:]
    )
    fast.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return fast


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_trl_trains_on_the_files_unchanged(method, store, tmp_path):
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

    campaign(store)
    out = exported(store, tmp_path)
    data = load_dataset(str(out), f"{method}_style", split="train", cache_dir=str(tmp_path / "cache"))
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **sizes))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config, trainer = (DPOConfig, DPOTrainer) if method == "dpo" else (KTOConfig, KTOTrainer)
    trained = trainer(
        model=model,
        args=config(
            output_dir=str(tmp_path / "run"), max_steps=1, per_device_train_batch_size=2, learning_rate=1e-2, use_cpu=True, bf16=False,
            report_to=[], disable_tqdm=True, save_strategy="no", gradient_checkpointing=False, dataloader_pin_memory=False,
        ),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip
    assert trained.train().training_loss > 0
    after = trained.model.state_dict()
    assert any(value.abs().max() > 0 for name, value in after.items() if "lora_B.default" in name)
    base = {name.replace("base_model.model.", "").replace(".base_layer", ""): value for name, value in after.items() if "lora_" not in name}
    assert base.keys() == before.keys()
    assert all(torch.equal(base[name], before[name]) for name in before)


def test_the_card_explains_every_column(store, tmp_path):
    campaign(store)
    out = exported(store, tmp_path)
    explained = {name for names in COLUMNS for name in names.split(", ")}
    files = [out / "judgments.jsonl", *out.glob("dpo_*.jsonl"), *out.glob("soft_*.jsonl"), *out.glob("kto_*.jsonl")]
    assert {key for file in files for line in lines(file) for key in line} - explained == set()
    assert all(f"`{name}`" in (out / "README.md").read_text(encoding="utf-8") for name in explained)


def test_no_cell_of_the_spreadsheet_runs_and_every_cell_comes_back(store, tmp_path):
    import pandas

    campaign(store)
    out = exported(store, tmp_path)
    data = (out / "judgments.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")  # without it Excel takes the file for another encoding
    cells = list(csv.reader(data.decode("utf-8-sig").splitlines(keepends=True)))
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in cells for cell in row)
    flat = lines(out / "judgments.jsonl")
    column = cells[0].index("rationale")
    assert [plain(row[column]) for row in cells[1:]] == [row["rationale"] for row in flat]
    assert any(row[column] == "''=x" for row in cells[1:])
    frame = pandas.read_csv(out / "judgments.csv", dtype=str, keep_default_na=False)
    assert list(frame.columns) == list(FLAT) and len(frame) == len(flat)
    table = pandas.read_parquet(out / "judgments.parquet")
    assert list(table["rationale"]) == [row["rationale"] for row in flat] and list(table["tags"].iloc[0]) == ["a", "b"]


# The folder


def test_nothing_that_names_a_person_or_opens_the_campaign_is_in_the_files(store, tmp_path):
    ada = person(store, "Ada Canary", identity_sha="c" * 64)
    [pair] = one_factor(store)
    judge(store, pair, ada, "good", "clearly")
    store.set_setting("secret", "s3cr3t-canary")
    default, named = exported(store, tmp_path), exported(store, tmp_path, with_names=True)

    def everything(folder):
        return b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())

    for text in (b"anary", b"c" * 64, str(tmp_path).encode()):
        assert text not in everything(default)
    assert b"Ada Canary" in everything(named) and b"c" * 64 not in everything(named) and b"s3cr3t" not in everything(named)


def test_an_empty_store_has_an_export_without_rows_that_says_so(store, tmp_path):
    out = exported(store, tmp_path)
    assert all(p.stat().st_size == 0 for p in out.rglob("*.jsonl"))
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "hold no judgments" in card and "configs:" not in card


def test_the_sums_name_every_file_and_the_export_is_named_by_them(store, tmp_path):
    campaign(store)
    out = tmp_path / "out"
    done = export(store, out)
    listed = (out / "SHA256SUMS").read_bytes()
    assert done.export_id == hashlib.sha256(listed).hexdigest() and done.n == len(lines(out / "judgments.jsonl"))
    sums = dict(reversed(line.split("  ")) for line in listed.decode().splitlines())
    files = {p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in out.rglob("*") if p.is_file()}
    assert sums == {name: sha for name, sha in files.items() if name != "SHA256SUMS"}
    assert all(sha in (out / "README.md").read_text() for name, sha in sums.items() if name != "README.md")
    assert store.record_export(done).export_id == done.export_id


def test_the_same_campaign_gives_the_same_bytes_later_and_elsewhere(store, tmp_path):
    campaign(store)
    first, second = tmp_path / "one", tmp_path / "deeper" / "two"
    assert export(store, first) == export(store, second)


def test_a_folder_that_holds_something_is_refused_untouched(store, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="not an empty folder; nothing was written"):
        export(store, tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    with pytest.raises(ValueError, match="not an empty folder"):
        export(store, tmp_path / "mine" / "thesis.txt")
    (tmp_path / "empty").mkdir()
    assert export(store, tmp_path / "empty").n == 0


def test_an_export_that_fails_leaves_nothing(store, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_module, "card", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match="No space"):
        export(store, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_the_card_keeps_text_by_people_from_being_markup(store, tmp_path):
    campaign(store)
    card = (exported(store, tmp_path) / "README.md").read_text(encoding="utf-8")
    assert r"native \| &lt;i&gt;: 2" in card and "<i>" not in card


@pytest.mark.parametrize("wrong", [{"p": 0.5}, {"p": 1.0}, {"p": float("nan")}, {"n_clear": 0}, {"cap": 0.0}])
def test_thresholds_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        Options(**wrong)


def test_the_command_line_exports_a_store_in_use(store, tmp_path, capsys):
    campaign(store)
    assert main(["--db", str(store.path), "--out", str(tmp_path / "out"), "--threshold", "0.7"]) == 0
    assert "answers, export" in capsys.readouterr().out
    assert "P >= 0.7" in (tmp_path / "out" / "README.md").read_text()
    assert main(["--db", str(store.path), "--out", str(tmp_path / "out")]) == 1
    assert "not an empty folder" in capsys.readouterr().err
    assert main(["--db", str(tmp_path / "none.db"), "--out", str(tmp_path / "new")]) == 1
    assert "does not exist" in capsys.readouterr().err and not (tmp_path / "new").exists()
    with pytest.raises(StoreError, match="does not exist"):
        open_store(tmp_path / "none.db", read_only=True)
