"""The mirror of a Space: a real CommitScheduler over a hub in this process; votes lost and brought back, erasures on both sides."""

from __future__ import annotations

import hashlib
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.hf_api import LFSFileInfo, RepoFile, RepoUrl
from store_data import fill, person, vote

from annotate.campaign import open_campaign
from annotate.database import StoreError
from annotate.journal import journal_path, segments
from annotate.mirror import Mirror, open_repo, restore
from annotate.store import open_store
from annotate.types import Annotator, Judgment

REPO = "someone/pat-votes"


class LocalHub(HfApi):
    """The calls that the mirror and CommitScheduler make, answered from memory: commits are whole trees, large files outlive them."""

    def __init__(self) -> None:
        super().__init__(token="not-a-token")
        self.commits: list[dict[str, bytes]] = []
        self.large: dict[str, tuple[str, bytes]] = {}
        self.private = True
        self.fault: Exception | None = None

    @property
    def tree(self) -> dict[str, bytes]:
        return self.commits[-1]

    def _answer(self) -> None:
        if self.fault is not None:
            raise self.fault

    def create_repo(self, repo_id, *, private, repo_type, exist_ok):
        self._answer()
        assert (repo_type, exist_ok, private) == ("dataset", True, True)
        self.commits = self.commits or [{".gitattributes": b""}]
        return RepoUrl(f"https://huggingface.co/datasets/{repo_id}")

    def repo_info(self, repo_id, *, repo_type):
        self._answer()
        return SimpleNamespace(private=self.private, sha=f"{len(self.commits):040d}")

    def list_repo_tree(self, repo_id, *, repo_type, recursive=True, revision=None, token=None):
        self._answer()
        tree = self.commits[int(revision) - 1] if revision else self.tree
        return [RepoFile(path=path, size=len(data), oid=hashlib.sha1(data).hexdigest()) for path, data in tree.items()]

    def create_commit(self, repo_id, operations, *, commit_message, repo_type, revision=None, parent_commit=None):
        self._answer()
        if parent_commit and int(parent_commit) != len(self.commits):
            raise OSError("412: a commit has happened since")
        tree = dict(self.tree)
        for operation in operations:
            if isinstance(operation, CommitOperationAdd):
                with operation.as_file() as file:
                    data = tree[operation.path_in_repo] = file.read()
                self.large[hashlib.sha256(data).hexdigest()] = (operation.path_in_repo, data)
            else:
                del tree[operation.path_in_repo]
        self.commits.append(tree)

    def snapshot_download(self, repo_id, *, repo_type, revision, local_dir, allow_patterns):
        self._answer()
        for path, data in self.commits[int(revision) - 1].items():
            if Path(path).match(allow_patterns):
                place = Path(local_dir) / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
        return str(local_dir)

    def super_squash_history(self, repo_id, *, repo_type):
        self._answer()
        self.commits = [self.tree]

    def list_lfs_files(self, repo_id, *, repo_type):
        at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        return [LFSFileInfo(fileOid=oid, filename=n, oid=oid, pushedAt=at, size=len(d)) for oid, (n, d) in self.large.items()]

    def permanently_delete_lfs_files(self, repo_id, lfs_files, *, repo_type):
        for file in lfs_files:
            del self.large[file.file_oid]

    def holds(self, text: str) -> bool:
        """Whether the text is anywhere: in a commit or in the storage behind it."""
        trees = [data for tree in tuple(self.commits) for data in tree.values()]
        return any(text.encode() in data for data in [*trees, *(data for _, data in tuple(self.large.values()))])


@pytest.fixture
def hub():
    return LocalHub()


@pytest.fixture
def repo(hub):
    return open_repo("someone/space", "not-a-token", REPO, hub)


@pytest.fixture
def running():
    """Starts mirrors and stops each at the end, as a process that dies does: without a last upload."""
    started = []

    def start(*arguments, **options):
        started.append(Mirror(*arguments, every_minutes=60, **options))
        return started[-1]

    yield start
    for mirror in started:
        mirror._scheduler.stop()


def lose_disk(path):
    for file in path.parent.glob(path.name + "*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()


def answers(store):
    return {j.judgment_id: j.outcome for j in store.all(Judgment)}


def test_off_spaces_nothing_leaves_the_machine(hub):
    hub.fault = AssertionError("the hub was called")
    assert open_repo("", "not-a-token", REPO, hub) is None


@pytest.mark.parametrize(("token", "repo_id"), [("", REPO), ("not-a-token", "")])
def test_a_space_without_a_place_for_its_votes_is_told(token, repo_id, hub):
    with pytest.raises(ValueError, match="loses its votes at every restart: set the secret HF_TOKEN"):
        open_repo("someone/space", token, repo_id, hub)


def test_a_public_dataset_is_refused(hub):
    hub.private = False
    with pytest.raises(StoreError, match="is public"):
        open_repo("someone/space", "not-a-token", REPO, hub)


def test_every_pushed_vote_is_back_after_the_disk_is_lost(tmp_path, hub, repo, running):
    path = tmp_path / "votes.db"
    assert restore(path, repo) is None
    with open_store(path) as store:
        pairs, ada = fill(store).pairs, person(store)
        mirror = running(store, repo)
        vote(store, pairs[0], ada, "B")
        mirror.push()
        vote(store, pairs[1], ada, "tie")
        mirror.push()
        pushed, content = answers(store), store.content_hash()
        vote(store, pairs[2], ada)  # never uploaded
    lose_disk(path)
    assert restore(path, repo).judgments == 2
    with open_store(path) as store:
        assert answers(store) == pushed and store.content_hash() == content
        assert segments(journal_path(path))
        second = running(store, repo)
        vote(store, pairs[3], store.all(Annotator)[0])
        second.push()
        assert {name.split("/")[1] for name in hub.tree if name.startswith("runs/")} == {second.run}
        assert len(hub.commits) == 1  # the run before is gone from the history too
    lose_disk(path)
    assert restore(path, repo).judgments == 3
    assert not path.with_name(path.name + ".aside").is_dir() or not any(path.with_name(path.name + ".aside").iterdir())


def test_a_restore_is_not_undone_by_what_the_dataset_still_holds(tmp_path, hub, repo):
    desk = open_campaign(tmp_path / "votes.db", "the owner's long token", repo=repo)
    try:
        pairs, ada = fill(desk.store).pairs, person(desk.store)
        kept = vote(desk.store, pairs[0], ada)
        copy = desk.store.backup().path
        vote(desk.store, pairs[1], ada, "B")
        assert "Restored" in (sentence := desk.restore(Path(copy))) and "not followed" not in sentence
        desk.erase(person(desk.store, "Bob").annotator_id)  # uploads once more
        assert answers(desk.store) == {kept.judgment_id: "A"}
        hub.fault = OSError("no network")
        with pytest.raises(StoreError, match="erased on this machine"):
            desk.erase(person(desk.store, "Eve").annotator_id)
        hub.fault = None
    finally:
        desk.close()
    lose_disk(desk.path)
    assert restore(desk.path, repo).judgments == 1


def test_an_erased_person_is_in_no_commit_and_no_storage(tmp_path, hub, repo, running):
    with open_store(tmp_path / "votes.db") as store:
        pairs, ada, bob = fill(store).pairs, person(store, "Ada Canary"), person(store, "Bob")
        mirror = running(store, repo)
        vote(store, pairs[0], ada, rationale="a canary in the rationale")
        vote(store, pairs[0], bob)
        mirror.push()
        assert hub.holds("Ada Canary") and hub.holds("a canary in the rationale")
        store.erase(ada.annotator_id)
        mirror.push()
        assert not hub.holds("anary")
        assert hub.holds("Bob")


def test_votes_of_a_run_that_went_on_beside_its_successor_come_over(tmp_path, hub, repo, running):
    old_path, new_path = tmp_path / "old.db", tmp_path / "new.db"
    with open_store(old_path) as old:
        pairs, ada = fill(old).pairs, person(old)
        first = running(old, repo)
        vote(old, pairs[0], ada)
        first.push()
        restore(new_path, repo)
        with open_store(new_path) as new:
            second = running(new, repo)
            second.push()  # deletes the run of the old process, which goes on
            late = vote(old, pairs[1], ada, "both_bad")
            first.push()
            vote(new, pairs[2], new.all(Annotator)[0])
            second.push()
            assert answers(new)[late.judgment_id] == "both_bad" and len(answers(new)) == 3
    lose_disk(new_path)
    assert restore(new_path, repo).judgments == 3


def test_a_late_run_found_only_at_the_next_start_is_added_to_the_furthest(tmp_path, hub, repo, running):
    old_path, new_path = tmp_path / "old.db", tmp_path / "new.db"
    with open_store(old_path) as old:
        pairs, ada = fill(old).pairs, person(old)
        first = running(old, repo)
        vote(old, pairs[0], ada)
        first.push()
        restore(new_path, repo)
        with open_store(new_path) as new:
            second = running(new, repo)
            for pair in pairs[2:]:
                vote(new, pair, new.all(Annotator)[0])
            second.push()
        vote(old, pairs[1], ada)
        late = [CommitOperationAdd(f"runs/late/{s.name}", s) for s in segments(journal_path(old_path))]
        hub.create_commit(REPO, late, commit_message="a last upload", repo_type="dataset")
    lose_disk(new_path)
    done = restore(new_path, repo)
    assert (done.judgments, done.late) == (4, 1)


def test_an_erasure_in_a_run_beside_this_one_is_carried_out_here_too(tmp_path, hub, repo, running):
    old_path, new_path = tmp_path / "old.db", tmp_path / "new.db"
    with open_store(old_path) as old:
        pairs, ada = fill(old).pairs, person(old, "Ada Canary")
        vote(old, pairs[0], ada)
        first = running(old, repo)
        first.push()
        restore(new_path, repo)
        with open_store(new_path) as new:
            old.erase(ada.annotator_id)
            first.push()
            second = running(new, repo)
            second.push()
            assert not new.all(Annotator) and not hub.holds("anary")


def test_the_seconds_that_could_be_lost_grow_until_an_upload_succeeds(tmp_path, hub, repo, running):
    seconds = [0.0]
    with open_store(tmp_path / "votes.db") as store:
        mirror = running(store, repo, clock=lambda: seconds[0])
        mirror.push()
        seconds[0] = 200
        assert mirror.loss_seconds == 200
        hub.fault = OSError("503: the hub is resting")
        with pytest.raises(StoreError, match="cannot be reached"):
            mirror.push()
        seconds[0] = 900
        assert mirror.state.loss_seconds == 900 and mirror.state.window_seconds == 3600
        assert "the hub is resting" in mirror.state.problem
        hub.fault = None
        mirror.push()
        assert mirror.loss_seconds == 0 and mirror.state.problem == "" and mirror.state.last_success


def test_no_second_campaign_begins_where_the_votes_cannot_be_read(tmp_path, hub, repo, running):
    path = tmp_path / "votes.db"
    with open_store(path) as store:
        fill(store)
        running(store, repo).push()
    lose_disk(path)
    hub.fault = OSError("500")
    with pytest.raises(StoreError, match="cannot be reached"):
        restore(path, repo)
    hub.fault = None
    good = hub.tree
    hub.commits.append({name: data.replace(b"text 1", b"text X") for name, data in good.items()})
    with pytest.raises(StoreError, match="were altered"):
        restore(path, repo)
    assert not path.exists()


def test_another_campaign_in_the_dataset_is_neither_merged_nor_deleted(tmp_path, hub, repo, running):
    for name in ("one", "two"):
        with open_store(tmp_path / f"{name}.db") as store:
            fill(store, prompt=name)
            mirror = running(store, repo)
            mirror.push()
    assert len({path.split("/")[1] for path in hub.tree if path.startswith("runs/")}) == 2
    assert "another campaign" in mirror.state.problem
    with pytest.raises(StoreError, match="two campaigns"):
        restore(tmp_path / "three.db", repo)


def test_the_scheduler_pushes_by_itself(tmp_path, hub, repo):
    with open_store(tmp_path / "votes.db") as store:
        fill(store)
        mirror = Mirror(store, repo, every_minutes=1 / 600)
        person(store, "Somebody")
        until = time.monotonic() + 10
        while not hub.holds("Somebody") and time.monotonic() < until:
            time.sleep(0.02)
        assert hub.holds("Somebody")
        mirror.close()
        person(store, "Too late")
        mirror.push()
        assert not hub.holds("Too late")
