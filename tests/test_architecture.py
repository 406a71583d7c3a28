"""The import order is the reading order: each module imports only from those above it in ORDER."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = [
    "pat_core.types", "pat_core.config", "pat_core.progress", "pat_core.cache", "pat_core.bm25", "pat_core.readers", "pat_core.cleaning", "pat_core.labels",
    "pat_core.corpus", "pat_core.stylometry", "pat_core.cues", "pat_core.embed", "pat_core.index", "pat_core.style_net", "pat_core.graph", "pat_core.topics",
    "pat_core.points", "pat_core.prompts", "pat_core.weights", "pat_core.lora", "pat_core.adapters", "pat_core.llm.types", "pat_core.llm.prompting",
    "pat_core.llm.openvino_worker", "pat_core.llm.openvino_engine", "pat_core.llm.transformers_engine", "pat_core.llm.server_engine", "pat_core.llm", "pat_core.query",
    "pat_core.agents", "pat_core.metrics", "pat_core.estimates", "pat_core.credit", "pat_core.rewards", "pat_core.preferences", "pat_core.pipeline", "pat_core.lineage", "pat_core.serving", "pat_core.summaries",
    "pat_core.warm_start", "pat_core.dpo_trainer", "pat_core.dpo", "pat_core.rounds_rollouts", "pat_core.benchmark", "pat_core.retrieval_eval",
    "pat_core.asked", "pat_core.desk", "pat_core.systems", "pat_core.predictions", "pat_core.scoring", "pat_core.verdicts", "pat_core.llm_judge", "pat_core.palette", "pat_core.results_file", "pat_core.result_words", "pat_core.result_pictures", "pat_core.results_html", "pat_core.evaluate", "pat_core.run_state", "pat_core.train",
    "pat_core.rounds_report", "pat_core.rounds", "pat_core.faithfulness",
]  # fmt: skip
ANNOTATE = [
    "annotate", "annotate.fields", "annotate.types", "annotate.migrations", "annotate.database", "annotate.rows", "annotate.journal", "annotate.archive",
    "annotate.queries", "annotate.writer", "annotate.intake", "annotate.store", "annotate.stats.votes", "annotate.stats.model", "annotate.stats.pairs",
    "annotate.stats.power", "annotate.stats.ratings", "annotate.stats.agreement", "annotate.stats.annotators", "annotate.stats", "annotate.votes",
    "annotate.guard", "annotate.traces", "annotate.schedule", "annotate.constructed", "annotate.making", "annotate.schedule.__main__", "annotate.sheets", "annotate.transfer",
    "annotate.card", "annotate.export", "annotate.mirror", "annotate.gate", "annotate.pair_queue", "annotate.visit", "annotate.campaign", "annotate.marks", "annotate.protocol", "annotate.figures",
    "annotate.words", "annotate.report", "annotate.jobs", "annotate.lessons", "annotate.prospect", "annotate.closed_loop", "annotate.learning", "annotate.training", "annotate.bench", "annotate.ui", "annotate.ui.choice", "annotate.ui.page", "annotate.ui.owner_cards", "annotate.ui.owner_run_cards", "annotate.ui.owner_train_cards",
    "annotate.ui.owner_desk", "annotate.ui.owner_people", "annotate.ui.owner_data", "annotate.ui.owner_pairs", "annotate.ui.owner_settings", "annotate.ui.owner_train", "annotate.ui.owner",
]  # fmt: skip
ORDER = CORE + ANNOTATE
ONLY_IN = {
    "gradio": ("pat_core/ui", "annotate/ui", "app.py"),
    "sqlite_utils": ("annotate",),
    "sentence_transformers": ("pat_core/embed.py",),
    "trl": ("pat_core/train.py", "pat_core/dpo.py", "pat_core/dpo_trainer.py"),
    "evalica": ("annotate/stats",),
    "plotly": ("pat_core/result_pictures.py", "pat_core/results_html.py"),
    "huggingface_hub": ("annotate/mirror.py", "app.py", "pat_core/llm", "pat_core/weights.py", "pat_core/dpo.py", "pat_core/embed.py"),
}


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def core_files() -> list[Path]:
    return [p for p in sorted((ROOT / "pat_core").rglob("*.py")) if "ui" not in p.parts and module_name(p) != "pat_core"]


def annotate_files() -> list[Path]:
    return sorted((ROOT / "annotate").rglob("*.py"))


def test_every_module_has_its_place_in_the_order():
    assert sorted(CORE) == sorted(module_name(p) for p in core_files())
    assert sorted(ANNOTATE) == sorted(module_name(p) for p in annotate_files())


def test_imports_go_up_only():
    place = {name: i for i, name in enumerate(ORDER)}
    wrong = [
        f"{module_name(p)} imports {other}"
        for p in (*core_files(), *annotate_files())
        for other in imported(p) & place.keys()
        if place[other] >= place[module_name(p)] and not other == module_name(p).rpartition(".")[0]
    ]
    assert wrong == []


def test_the_core_knows_neither_the_page_nor_the_annotation():
    wrong = [f"{p}: {m}" for p in core_files() for m in imported(p) if m.split(".")[0] in ("annotate", "gradio", "app") or m.startswith("pat_core.ui")]
    assert wrong == []


def test_each_outside_library_is_imported_where_it_belongs():
    files = [*sorted((ROOT / "pat_core").rglob("*.py")), *sorted((ROOT / "annotate").rglob("*.py")), ROOT / "app.py"]
    wrong = [
        f"{p.relative_to(ROOT)} imports {library}"
        for p in files
        for library, homes in ONLY_IN.items()
        if library in {m.split(".")[0] for m in imported(p)} and not str(p.relative_to(ROOT)).startswith(homes)
    ]
    assert wrong == []


def test_only_config_reads_the_environment():
    readers = [p.name for p in core_files() if "os.environ" in p.read_text(encoding="utf-8") and p.name != "config.py"]
    assert readers == []
