"""On a Space, whose disk is gone at every restart: the journal in a private dataset, and the votes back from it before anything is served.

Every process (a *run*) uploads its journal to a folder of its own, ``runs/RUN/``, each few minutes through huggingface_hub's
CommitScheduler, and never touches what others wrote until all of it is in its own database, or a restore has replaced it; so two runs that
overlap while a Space restarts cannot overwrite each other's votes. What an erasure or a restart has made superfluous is deleted there too,
and then from the repository's history. Leaves out where the token comes from, and every place but a Space: there nothing here is used.
"""

from __future__ import annotations

import logging
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import httpx
from huggingface_hub import CommitInfo, CommitOperationDelete, CommitScheduler, HfApi
from huggingface_hub.hf_api import RepoFile

from annotate import archive
from annotate.database import StoreError, connect_reader
from annotate.journal import journal_path, segments
from annotate.rows import position
from annotate.store import Store, open_store
from annotate.transfer import contents_of, take_over
from annotate.types import Annotator, Erasure, timestamp

log = logging.getLogger(__name__)

EVERY_MINUTES = 5.0
RUNS = "runs"
Files = dict[str, str]  # path in the repository -> id of its content


@dataclass(frozen=True, slots=True)
class Restored:
    """Votes brought back from the dataset: ``judgments`` in all, ``late`` of them from a run that went on beside its successor."""

    judgments: int
    late: int
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MirrorState:
    """How the mirror is. Votes of the last ``loss_seconds`` may be on this machine only; more than ``window_seconds`` means trouble."""

    repo_id: str
    last_success: str
    loss_seconds: int
    window_seconds: int
    problem: str


class VotesRepo:
    """The private dataset that holds the runs. Errors of the network and the hub come as StoreError."""

    def __init__(self, repo_id: str, api: HfApi) -> None:
        self.repo_id = repo_id
        self.api = api
        self._names = {"repo_id": repo_id, "repo_type": "dataset"}

    def require_private(self) -> None:
        """Make the dataset if there is none. Raises StoreError where it is public or out of reach."""
        with self.spoken():
            self.api.create_repo(**self._names, private=True, exist_ok=True)
            private = self.api.repo_info(**self._names).private
        if not private:
            raise StoreError(f"The dataset {self.repo_id} is public, which votes must not be: make it private, or name another one.")

    def head(self) -> str:
        with self.spoken():
            return self.api.repo_info(**self._names).sha

    def runs(self, revision: str) -> dict[str, Files]:
        """The segments of every run at ``revision``."""
        found: dict[str, Files] = {}
        with self.spoken():
            for entry in self.api.list_repo_tree(**self._names, recursive=True, revision=revision):
                parts = PurePosixPath(entry.path).parts
                if isinstance(entry, RepoFile) and len(parts) == 3 and parts[0] == RUNS and parts[2].endswith(".jsonl"):
                    found.setdefault(parts[1], {})[entry.path] = entry.blob_id
        return found

    def rebuild(self, run: str, revision: str, folder: Path) -> archive.Manifest:
        """The database of one run, made from its journal alone, in ``folder``. Raises StoreError where the journal is damaged."""
        with self.spoken():
            where = self.api.snapshot_download(**self._names, revision=revision, local_dir=folder, allow_patterns=f"{RUNS}/{run}/*.jsonl")
        journal = journal_path(folder / "votes.db")
        (Path(where) / RUNS / run).rename(journal)
        return archive.rebuild(folder / "votes.db", folder / "copy.db")

    def delete(self, paths: list[str], parent: str) -> None:
        """Delete files, unless something was committed after ``parent``."""
        operations = [CommitOperationDelete(path) for path in paths]
        with self.spoken():
            self.api.create_commit(**self._names, operations=operations, commit_message="Delete replaced segments", parent_commit=parent)

    def forget_history(self) -> None:
        """Leave nothing of deleted files: one commit remains, and large files that are not in it are deleted from the storage too."""
        with self.spoken():
            self.api.super_squash_history(**self._names)
            here = set(self.api.list_repo_files(**self._names))
            gone = [file for file in self.api.list_lfs_files(**self._names) if file.filename not in here]
            if gone:
                self.api.permanently_delete_lfs_files(**self._names, lfs_files=gone)

    @contextmanager
    def spoken(self) -> Iterator[None]:
        """Turns errors of the network and the hub into StoreError."""
        try:
            yield
        except (OSError, httpx.HTTPError) as error:
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise StoreError(
                f"The votes in {self.repo_id} cannot be reached ({reason}): see that HF_TOKEN may write to it and the hub answers."
            ) from error


def open_repo(space_id: str, token: str, repo_id: str, api: HfApi | None = None) -> VotesRepo | None:
    """The dataset for the votes of the Space ``space_id``; None off Spaces (''), whatever else is given.

    Raises ValueError on a Space without a token or dataset, StoreError where the dataset is public or out of reach.
    """
    if not space_id:
        return None
    if not token or not repo_id:
        raise ValueError(
            "this Space loses its votes at every restart: set the secret HF_TOKEN (write access) and the variable PAT_VOTES_REPO to a "
            f"private dataset such as {space_id.split('/')[0]}/pat-votes"
        )
    repo = VotesRepo(repo_id, api or HfApi(token=token))
    repo.require_private()
    return repo


def restore(path: Path, repo: VotesRepo) -> Restored | None:
    """Bring the database at ``path`` back before it is opened; None where it is there already or nothing was ever uploaded.

    The run that got furthest becomes the database, votes that only others have are added. Raises StoreError where the dataset cannot be
    read or holds two campaigns, so that no other campaign begins or goes on in place of this one.
    """
    if path.exists() or segments(journal_path(path)):
        return None
    head = repo.head()
    with tempfile.TemporaryDirectory(prefix="annotate-restore-") as folder:
        copies, problems = [], []
        for run in repo.runs(head):
            place = Path(folder) / run
            place.mkdir()
            try:
                copies.append(repo.rebuild(run, head, place))
            except StoreError as error:
                problems.append(str(error))
        if not copies:
            if problems:
                raise StoreError(f"No votes could be brought back from {repo.repo_id}: {' '.join(problems)}")
            return None
        if len({copy.store_id for copy in copies}) > 1:
            raise StoreError(f"{repo.repo_id} holds the votes of two campaigns: give each a dataset of its own, and move one's runs there.")
        path.parent.mkdir(parents=True, exist_ok=True)
        first, *others = sorted(copies, key=lambda copy: copy.seq, reverse=True)
        aside = archive.restore(path, Path(first.path)).aside
        if not any(aside.iterdir()):  # there was nothing to move aside
            aside.rmdir()
        with open_store(path) as store:
            late = sum(_merge(store, Path(copy.path)) for copy in others)
            n = store.counts()["judgments"]
    for problem in problems:
        log.warning("%s", problem)
    log.info("%d votes are back from %s", n, repo.repo_id)
    return Restored(n, late, tuple(problems))


def _merge(store: Store, copy: Path) -> int:
    """Add what only the database ``copy`` has, its erasures too; the number of new answers."""
    with open_store(copy, read_only=True) as other:
        for erasure in other.all(Erasure):
            if store.find(Annotator, annotator_id=erasure.annotator_id):
                store.erase(erasure.annotator_id)
    taken = take_over(store, contents_of(copy), "another run of this Space")
    if taken.refused:
        log.warning("%d answers of another run contradict what stands here and were not taken over", len(taken.refused))
    return taken.judgments


def _store_id(path: Path) -> str:
    db = connect_reader(path)
    try:
        return position(db)[0]
    finally:
        db.close()


class _Segments(CommitScheduler):
    """Uploads the segments as CommitScheduler does, between what the mirror does before and after."""

    def __init__(self, around: Callable[[_Segments, Callable[[], CommitInfo | None]], None], **options: object) -> None:
        self._around = around
        super().__init__(**options)

    def push_to_hub(self) -> None:
        self._around(self, super().push_to_hub)


class Mirror:
    """Uploads the journal of an open store from now on until ``close``; the scheduler swallows errors, ``state`` tells them.

    ``supersedes`` is the closed mirror of a store in whose place a backup was put: what it uploaded or took over is not taken over again,
    and goes once the restored store is in the dataset.
    """

    def __init__(
        self,
        store: Store,
        repo: VotesRepo,
        every_minutes: float = EVERY_MINUTES,
        clock: Callable[[], float] = time.monotonic,
        *,
        supersedes: Mirror | None = None,
    ) -> None:
        self.run = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
        self._store = store
        self._store_id = _store_id(store.path)
        self._repo = repo
        self._clock = clock
        self._window = round(every_minutes * 60)
        self._safe_until = clock()
        self._last_success = ""
        self._error = ""
        self._damaged: dict[str, str] = {}
        self._taken: dict[str, Files] = {}
        if supersedes is not None:
            runs = repo.runs(repo.head())
            self._taken = {run: files for run, files in runs.items() if run == supersedes.run or supersedes._taken.get(run) == files}
        self._history_holds_deleted = False
        with repo.spoken():
            self._scheduler = _Segments(
                self._push,
                repo_id=repo.repo_id,
                repo_type="dataset",
                private=True,
                folder_path=journal_path(store.path),
                path_in_repo=f"{RUNS}/{self.run}",
                allow_patterns="*.jsonl",
                every=every_minutes,
                hf_api=repo.api,
            )

    @property
    def loss_seconds(self) -> int:
        """Votes of the last so many seconds may be on this machine only."""
        return max(0, int(self._clock() - self._safe_until))

    @property
    def state(self) -> MirrorState:
        problem = " ".join(filter(None, [self._error, *self._damaged.values()]))
        return MirrorState(self._repo.repo_id, self._last_success, self.loss_seconds, self._window, problem)

    def push(self) -> None:
        """Upload now and wait for it: after an erasure, and before the end. Raises StoreError where it failed."""
        self._scheduler.trigger().result()

    def close(self) -> None:
        """One last upload, then no more."""
        try:
            self.push()
        except StoreError as error:
            log.warning("the last votes are not in the dataset: %s", error)
        self._scheduler.stop()

    def _push(self, scheduler: _Segments, upload: Callable[[], CommitInfo | None]) -> None:
        begun, at = self._clock(), timestamp(datetime.now(UTC))
        try:
            runs = self._repo.runs(head := self._repo.head())
            self._take_late_votes(runs, head)
            there = {PurePosixPath(path).name for path in runs.get(self.run, ())}
            for path in [path for path in scheduler.last_uploaded if path.name not in there]:
                del scheduler.last_uploaded[path]  # a later run deleted it: it goes up again
            with self._repo.spoken():
                upload()
            self._delete_replaced()
        except BaseException as error:
            self._error = str(error)
            raise
        self._safe_until, self._last_success, self._error = begun, at, ""

    def _take_late_votes(self, runs: dict[str, Files], head: str) -> None:
        """Add what other runs uploaded since this one last looked."""
        for run, files in sorted(runs.items()):
            if run == self.run or self._taken.get(run) == files:
                continue
            with tempfile.TemporaryDirectory(prefix="annotate-run-") as folder:
                try:
                    copy = self._repo.rebuild(run, head, Path(folder))
                    if copy.store_id != self._store_id:
                        raise StoreError("it belongs to another campaign, which needs a dataset of its own")
                    n = _merge(self._store, Path(copy.path))
                except StoreError as error:
                    self._damaged[run] = f"Run {run} in {self._repo.repo_id} is kept but was not taken over: {error}"
                    continue
            self._damaged.pop(run, None)
            self._taken[run] = files
            if n:
                log.info("%d votes came over from run %s", n, run)

    def _delete_replaced(self) -> None:
        """Delete own segments that the journal has replaced and runs that are wholly in this database, once all of it is uploaded."""
        runs = self._repo.runs(head := self._repo.head())
        here = {segment.name for segment in segments(journal_path(self._store.path))}
        own = {PurePosixPath(path).name: path for path in runs.get(self.run, ())}
        replaced = []
        if here and here <= own.keys():
            replaced += [path for name, path in own.items() if name not in here]
            replaced += [path for run, files in runs.items() if run != self.run and self._taken.get(run) == files for path in files]
        if replaced:
            self._repo.delete(replaced, head)
            self._history_holds_deleted = True
        if self._history_holds_deleted:
            self._repo.forget_history()
            self._history_holds_deleted = False
