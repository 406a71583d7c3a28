"""The leak guard: what gives a text away, what only looks like it, and how a text is mended."""

import pytest
from conftest import benchmark_file

from annotate.guard import KNOWN_NAMES, MASK, breaks_off, guard, leak, masked, names_of, whole_sentences
from annotate.types import Candidate
from pat_core.config import DEMO_CORPUS
from pat_core.corpus import read_corpus

LEAKS = {
    "speaks as an assistant": [
        "As an AI language model I have never slept here, but the bed sounds fine.",
        "You are an AI assistant with the skills of a dog. The app is great.",
        "You are a helpful AI assistant named SmolLM, trained by Hugging Facecookbook. We are glad.",
        "I’m an AI, and this kettle is lovely.",
        "I was trained by OpenAI to write about trains.",
        "Sure! Here's a review of the kettle: it is great.",
        "Choose a story to get started. I'm here to help choose the best one!",
    ],
    "refuses": [
        "I'm sorry, but I can't help with that request.",
        "I cannot assist in writing this.",
        "I don't have personal experiences, yet people like the inn.",
    ],
    "shows its instructions": ["Lovely.\nHow to write: about 40 words.", 'The same person wrote: "All told"', "Guidance: praise the beep."],
    "holds control tokens": ["The inn is warm.<|im_end|>", "Great kettle.\nassistant\nGreat kettle.", "ok [/INST] fine"],
    "repeats itself": ["I love it. " * 9, "the lid and " * 12, "so " * 40, "The pour is slow. It beeps at me, loudly. " * 4],
    "names the model": [
        "PaT wrote this about a kettle.",
        "smollm2-135M likes the beep.",
        "Ask chatgpt about the inn.",
        "Qwen2.5 says hello.",
    ],
    "breaks off": ["The dial goes up and", "We came back with the", "Good pour, nice handle,", "The best thing is (", "It has a re-"],
    "is empty": ["", " \n", "?! ..."],
}
FINE = [
    "this model of kettle is the best one, ask for the 2023 model",
    "The lamp copies the light of the sun. None better. A pat on the back for the style of it!",
    "pat was great at the front desk. Pat again!",
    "I'm sorry I can't recommend the inn. I cannot help myself, I love it.",
    "As an assistant manager I slept in many inns. The staff said: I can't help you, sir.",
    "As a long-time chatbot developer I know. I am a proud AI system engineer.",
    "My daughter is an AI researcher, and she loves the title of it.",
    "no no no no no!!! the beep!!!!!!!!!!!!!!!!!!!!!!!! sooooooo loud hahahahaha",
    "liked this movie..............................................",
    "it pours nicely i guess, maybe a bit slow, the handle got warm",
    "and then it rained :(",
    "Unfortunately I cannot give it more stars. I will not write about the smell.",
    "I can't create this look with any other brush, and I can't generate any steam at all",
]


@pytest.mark.parametrize(("reason", "text"), [(reason, text) for reason, texts in LEAKS.items() for text in texts])
def test_what_gives_a_text_away_is_named(reason, text):
    assert leak(text) == reason


@pytest.mark.parametrize("text", FINE)
def test_ordinary_reviews_pass_with_every_finish_but_a_cut(text):
    assert leak(text, finish="stop") == leak(text) == ""


@pytest.mark.parametrize("source", ["demo", "amazon_dev.json", "hotel_dev.json", "gap_dev.json"])
def test_hardly_any_text_by_a_person_is_refused(source):
    corpus, _ = read_corpus(DEMO_CORPUS if source == "demo" else benchmark_file(source))
    found = [leak(r.text) for r in corpus.reviews[::4]]
    assert sum(map(bool, found)) <= len(found) // 100
    assert set(found) <= {"", "breaks off", "repeats itself"}  # nobody sounds like a model


def test_a_text_cut_by_its_limit_breaks_off_unless_a_sentence_ends_there():
    assert breaks_off("It was fine. I would go back to", "length") and not breaks_off("It was fine. I would go back to", "stop")
    assert not any(breaks_off(t, "length") for t in ("It was fine.", 'He said "fine!"', "Fine! 😀", "fine..."))
    assert whole_sentences("Slow pour (loved it!). Good. It beeps and I") == "Slow pour (loved it!). Good."
    assert whole_sentences("Good. It beeps and then it does nothing else at all for me") == ""  # less than half would remain


def test_masking_takes_names_with_their_versions_and_leaves_words_alone():
    assert masked("PaT and SmolLM2 pat the GPT-4o, hugging face.") == f"{MASK} and {MASK} pat the {MASK}, {MASK}."
    assert masked("Ask Zephyrette today", ["Zephyrette"]) == f"Ask {MASK} today"
    assert masked("nothing here", []) == "nothing here"


def test_the_names_of_an_engine_are_its_models_and_no_ordinary_words():
    assert names_of("SmolLM2-135M-Instruct (Q4_1) on OpenVINO, 1 thread") == ("SmolLM2-135M-Instruct", "SmolLM2-135M", "SmolLM2", "SmolLM")
    assert names_of("meta-llama/Llama-3.1-8B on 10.0.0.1:80 (OpenAI-compatible server)") == ("Llama-3.1-8B", "Llama-3.1")
    assert names_of("model on 127.0.0.1 (OpenAI-compatible server)") == names_of("") == ()


def candidate(text: str, **trace: object) -> Candidate:
    return Candidate("a" * 64, text, "pat", trace)


def test_the_guard_mends_names_and_broken_ends_and_says_so():
    shown = guard(candidate("The Marvin7 likes it all. It pours and the", engine="org/Marvin7-8B (nf4) on CUDA", finish="length"))
    assert shown.text == f"The {MASK} likes it all." and shown.trace["guard"] == ["masked", "cut"]
    assert guard(candidate("A quiet kettle.", engine="Marvin7-8B on x")).trace == {"engine": "Marvin7-8B on x"}
    assert guard(candidate("As an AI language model, I cannot boil.")) == "speaks as an assistant"


def test_a_text_that_trains_the_generator_is_never_changed():
    completion = {"completion": {"role": "generator"}}
    assert guard(candidate("PaT is fine.", **completion)) == "names the model"
    assert guard(candidate("It is fine. And it", finish="length", **completion)) == "breaks off"
    assert guard(candidate("It is fine.", finish="length", **completion)).text == "It is fine."


def test_a_name_in_the_question_belongs_to_the_topic():
    about = "Review of ChatGPT for beginners: a book"
    assert guard(candidate("ChatGPT is explained well."), about=about).text == "ChatGPT is explained well."
    assert guard(candidate("ChatGPT and OpenAI are explained well."), about=about).text == f"ChatGPT and {MASK} are explained well."
    assert "ChatGPT" in KNOWN_NAMES
