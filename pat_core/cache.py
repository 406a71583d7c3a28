"""Folders of derived files that are either whole and exactly what was asked for, or are made again: embeddings and indexes.

A folder is written under another name, its manifest (the facts it was made from, a sha256 of every file) last, and then renamed. Leaves out
eviction: a cache folder can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

MANIFEST = "manifest.json"
SEAL = "sealed.json"
Facts = Mapping[str, str | int | float]

log = logging.getLogger(__name__)


def facts_key(facts: Facts) -> str:
    """A folder name for these facts: 32 hex digits."""
    return hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()[:32]


def save_folder(folder: Path, write: Callable[[Path], None], facts: Facts) -> bool:
    """Has ``write`` fill a new folder, then puts it in place of ``folder``; False, with a warning, where the disk does not take it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    except OSError as error:
        log.warning("nothing can be cached in %s: %s", folder.parent, error)
        return False
    try:
        write(made)
        files = {path.name: file_sha256(path) for path in sorted(made.iterdir())}
        manifest = json.dumps({"facts": dict(facts), "files": files}, indent=1)
        with open(made / MANIFEST, "w", encoding="utf-8") as file:
            file.write(manifest)
            file.flush()
            os.fsync(file.fileno())
        if folder.exists():
            folder.rename(made / "replaced")  # a rename cannot replace a folder that is not empty
        made_old = made / "replaced"
        made.rename(folder)
        shutil.rmtree(folder / made_old.name, ignore_errors=True)
    except (OSError, RuntimeError) as error:  # hnswlib reports a full disk as RuntimeError
        log.warning("%s could not be cached: %s", folder, error)
        shutil.rmtree(made, ignore_errors=True)
        return False
    return True


def is_whole(folder: Path, facts: Facts) -> bool:
    """Whether the folder was made from exactly these facts and none of its files has changed since. Reads every byte."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = manifest.get("files") if isinstance(manifest, dict) else None
        if not isinstance(files, dict) or not files or manifest.get("facts") != dict(facts):
            return False
        return all(file_sha256(folder / Path(name).name) == digest for name, digest in files.items())
    except (OSError, ValueError, RecursionError):
        return False


def seal(folder: Path) -> None:
    """Writes what the files of ``folder`` hold into ``SEAL`` there, all of it on the disk, so that damage is noticed afterwards."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    for path in files:
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
    entries = {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
    new = folder / f".{SEAL}.new"
    with open(new, "w", encoding="utf-8") as file:
        json.dump(entries, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / SEAL)


def is_sealed(folder: Path) -> bool:
    """Whether ``folder`` was sealed and none of its files has changed since; files that came later do not matter."""
    try:
        entries = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        return all(file_sha256(folder / name) == digest for name, digest in entries.items())
    except (OSError, ValueError, AttributeError):
        return False


def file_sha256(path: Path) -> str:
    """sha256 of the file's bytes, hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
