"""README.md tells the truth: its front matter, file tree, settings and commands are those of the program."""

import dataclasses
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

from pat_core.config import Config, load_config

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return re.split(r"^## ", README.split(f"## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def test_front_matter_is_what_spaces_reads():
    front = dict(line.split(": ", 1) for line in README.split("---")[1].strip().splitlines())
    requirements = (ROOT / "requirements.txt").read_text()
    assert front["sdk"] == "gradio" and front["app_file"] == "app.py" and front["python_version"] == '"3.12"'
    assert front["sdk_version"].startswith(re.search(r"gradio>=(\d+\.\d+)", requirements)[1])
    assert len(front["short_description"]) <= 60
    assert "pydantic" not in requirements


def test_every_setting_is_documented_and_read():
    documented = set(re.findall(r"`(PAT_[A-Z_]+)`", section("Settings"))) - {"PAT_TEST_DATA"}
    fields = {f"PAT_{f.name.upper()}" for f in dataclasses.fields(Config)}
    assert documented == fields
    assert set(re.findall(r"\bPAT_[A-Z_]+", (ROOT / "pat_core" / "config.py").read_text())) == fields


def test_the_file_tree_names_every_module():
    tree = section("Files")
    missing = [
        str(p.relative_to(ROOT))
        for folder in ("pat_core", "annotate")
        for p in sorted((ROOT / folder).rglob("*.py"))
        if p.name != "__init__.py" and p.name not in tree
    ]
    assert missing == []
    named = re.findall(r"^([\w./]+\.\w+) ", tree, flags=re.MULTILINE)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_picture_and_linked_file_is_there():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ((?:pat_core|annotate)[\w.]*)", README))))
def test_every_command_exists(module):
    is_package = importlib.util.find_spec(module).submodule_search_locations is not None
    assert callable(importlib.import_module(f"{module}.__main__" if is_package else module).main)


@pytest.mark.parametrize("option", re.findall(r"--[a-z-]+", section("Start").split("Options:")[1].split("\n")[0]))
def test_the_options_of_the_app_are_its_options(option):
    assert f'"{option}"' in (ROOT / "app.py").read_text()


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"PAT_ENGINE": "magic"}, "PAT_ENGINE='magic' is not known; use one of 'auto'"),
        ({"PAT_QUANT": "int2"}, "PAT_QUANT='int2'"),
        ({"PAT_ENGINE": "server"}, "needs PAT_LLM_URL"),
        ({"PAT_LLM_URL": "localhost:8000"}, "must begin with http"),
        ({"PAT_THREADS": "many"}, "must be a whole number"),
    ],
)
def test_a_bad_setting_gets_a_sentence(env, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        load_config(env)
