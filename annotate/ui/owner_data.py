"""The campaign's data in the owner's hands: backups and restore, exports, and erasing a person.

What cannot be undone asks for a typed word. A restore takes only copies that the store has listed itself, never a path from the page; an
export goes to the browser inside the answer, so that no file of it lies in Gradio's cache.
"""

from __future__ import annotations

import base64
import io
import json
import tempfile
import zipfile
from html import escape
from pathlib import Path

import gradio as gr

from annotate import archive
from annotate.campaign import Campaign
from annotate.gate import Refusal
from annotate.store import ErasureReport
from annotate.types import Erasure
from annotate.ui.owner_desk import Done, OwnerDesk
from annotate.ui.owner_people import person_choices, somebody
from annotate.words import of, when

RESTORE_WORD, ERASE_WORD = "restore", "erase"
MAX_ZIP = 64 * 2**20  # bytes that one answer may carry
SAVE_ZIP = """(text) => {
  if (!text) return;
  const {name, base64} = JSON.parse(text);
  const bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([bytes], {type: 'application/zip'}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}"""


def build_data(desk: OwnerDesk) -> None:
    """Backup, restore, export, erase."""
    with gr.Row(elem_classes="pat-forms"):
        with gr.Column(min_width=300):
            _build_backup(desk)
        with gr.Column(min_width=300):
            _build_export(desk)
            _build_erase(desk)


def _build_backup(desk: OwnerDesk) -> None:
    gr.HTML(
        '<h3 class="pat-title">Backup</h3><p class="pat-hint">A copy of the database as it is at one moment, beside the database, with its '
        "checksum. People can go on judging meanwhile.</p>"
    )
    back_up = gr.Button("Make a backup", size="md")
    backed_up = gr.HTML("", elem_id="pat-backup-said")
    gr.HTML(
        '<h3 class="pat-title">Restore</h3><p class="pat-hint">Puts a backup in the place of the database, which is moved aside, not '
        "deleted. Answers given since then are gone from it. People erased since then stay erased.</p>"
    )
    copy = gr.Dropdown(label="Backup", choices=[], allow_custom_value=True, elem_id="pat-copies")
    word = gr.Textbox(label=f"Type {RESTORE_WORD} to confirm", max_length=20, elem_id="pat-restore-word")
    restore = gr.Button("Restore this backup", size="md", variant="stop")
    restored = gr.HTML("", elem_id="pat-restore-said")
    desk.shows(copy, lambda r: gr.Dropdown(choices=[(label, name) for name, (label, _) in copies(desk).items()]))

    def on_backup() -> Done:
        made = desk.campaign.store.backup()
        n = made.rows["judgments"]
        return Done(f"Copied: {of(n, 'answer', 'answers')} at change {made.seq:,}, to {made.path}.")

    def on_restore(chosen: object, typed: object) -> Done:
        found = copies(desk).get(chosen) if isinstance(chosen, str) else None
        if found is None:
            raise Refusal("shape", "Choose one of the listed backups first.")
        _confirmed(typed, RESTORE_WORD)
        if desk.jobs.status.running:
            raise Refusal("busy", f"{desk.jobs.status.name} is at work: wait for its end, or stop it under Pairs first.")
        return Done(desk.campaign.restore(found[1]), updates={word: ""})

    desk.on(back_up.click, on_backup, [], backed_up)
    desk.on(restore.click, on_restore, [copy, word], restored, [word])


def copies(desk: OwnerDesk) -> dict[str, tuple[str, Path]]:
    """Copies that restore can take, by the beginning of their checksum: in words, and where they are; the newest first."""
    found = []
    for path in archive.copies_of(desk.campaign.path):
        try:
            manifest = archive.Manifest(**json.loads(archive.manifest_path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # moved aside by a restore, or its manifest is gone: restore would not take it
            continue
        about = f"{of(manifest.rows.get('judgments', 0), 'answer')} · change {manifest.seq:,} · {path.name}"
        found.append((manifest.made_at, manifest.sha256[:16], about, path))
    return {name: (f"{when(at)} UTC · {about}", path) for at, name, about, path in sorted(found, reverse=True)}


def _build_export(desk: OwnerDesk) -> None:
    gr.HTML(
        '<h3 class="pat-title">Export</h3><p class="pat-hint">One zip: every answer as JSON Lines, Parquet and CSV, training files for '
        "TRL, a data card, and all that sets the campaign up elsewhere. People are random numbers in it.</p>"
    )
    names = gr.Checkbox(label="With nicknames", value=False)
    unblinded = gr.Checkbox(label="Train on answers given beside the names of the systems too", value=False)
    button = gr.Button("Export and save", size="md")
    said = gr.HTML("", elem_id="pat-export-said")
    zipped = gr.Textbox(label="Export", elem_classes="pat-hidden")

    def on_export(with_names: object, include_unblinded: object) -> Done:
        from annotate.export import Options, export  # brings the statistics, see OwnerDesk.cards

        store = desk.campaign.store
        with tempfile.TemporaryDirectory(prefix="annotate-export-") as folder:
            made = export(store, Path(folder) / "export", Options(include_unblinded is True, with_names is True))
            packed = _zip(Path(folder) / "export")
        if len(packed) > MAX_ZIP:
            size = f"{len(packed) / 2**20:.0f} MB"
            command = f"python -m annotate.export --db {store.path} --out FOLDER"
            raise Refusal("shape", f"The export has {size}, too large for a page: use {command}")
        if not desk.campaign.read_only:
            made = store.record_export(made)
        name = f"annotations-{made.export_id[:12]}.zip"
        content = json.dumps({"name": name, "base64": base64.b64encode(packed).decode()})
        return Done(f"{name}: {of(made.n, 'answer')} with all revisions, {len(packed) / 2**20:.1f} MB.", updates={zipped: content})

    desk.on(button.click, on_export, [names, unblinded], said, [zipped], repaint=False, then=SAVE_ZIP)


def _zip(folder: Path) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive_file:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive_file.write(path, path.relative_to(folder))
    return packed.getvalue()


def _build_erase(desk: OwnerDesk) -> None:
    gr.HTML(
        '<h3 class="pat-title">Erase a person</h3><p class="pat-hint">Removes every row of a person and every text they contributed, with '
        "all answers on those, from the database and its journal. A random number and counts remain. This cannot be undone.</p>"
    )
    who = gr.Dropdown(label="Person", choices=[], allow_custom_value=True, elem_id="pat-erase-who")
    word = gr.Textbox(label=f"Type {ERASE_WORD} to confirm", max_length=20, elem_id="pat-erase-word")
    erase = gr.Button("Erase this person", size="md", variant="stop")
    said = gr.HTML("", elem_id="pat-erase-said")
    desk.shows(gr.HTML("", elem_id="pat-still-held"), lambda r: _still_held(desk.campaign))
    desk.shows(who, lambda r: gr.Dropdown(choices=person_choices(r)))

    def on_erase(annotator_id: object, typed: object) -> Done:
        there = somebody(desk, annotator_id)
        _confirmed(typed, ERASE_WORD)
        gone = desk.campaign.erase(there.annotator_id)
        left = gr.Dropdown(choices=person_choices(desk.report()), value=None)
        return Done(_erased(gone), _remains(gone), {word: "", who: left})

    desk.on(erase.click, on_erase, [who, word], said, [word])


def _still_held(campaign: Campaign) -> str:
    """Copies with somebody who was erased since, by the owner or by themselves on their page."""
    erased = campaign.store.all(Erasure)
    held = {str(path) for erasure in erased for path in archive.copies_holding(campaign.path, erasure.annotator_id)}
    if not held:
        return ""
    places = "".join(f"<li>{escape(path)}</li>" for path in sorted(held))
    said = '<p class="pat-hint">These copies still hold somebody who was erased; delete them by hand:</p>'
    return f'{said}<ul class="pat-list">{places}</ul>'


def _confirmed(typed: object, word: str) -> None:
    if not isinstance(typed, str) or typed.strip().lower() != word:
        raise Refusal("shape", f"Nothing was done: type {word} to confirm.")


def _erased(report: ErasureReport) -> str:
    e = report.erasure
    others = f", with {of(e.n_others, 'answer')} of others on those" if e.n_others else ""
    return f"Erased: {of(e.n_judgments, 'answer')}, {of(e.n_assignments, 'assignment')}, {of(e.n_items, 'own text')}{others}."


def _remains(report: ErasureReport) -> str:
    """What still holds the person and has to be deleted by hand."""
    places = [f"<li>{escape(str(path))}</li>" for path in report.copies]
    places += [f"<li>export of {when(e.at)} UTC, {escape(e.export_id[:12])}, {of(e.n, 'answer')}</li>" for e in report.exports]
    if not places:
        return '<p class="pat-hint">No copy and no export holds them.</p>'
    return f'<p class="pat-hint">These may still hold this person; delete them by hand:</p><ul class="pat-list">{"".join(places)}</ul>'
