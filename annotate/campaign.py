"""One annotation campaign as the pages see it: who may judge, which pair comes next, what was answered, and what only the owner may do.

A campaign is a store, the secret behind its tokens and sides, and a few settings kept in the store itself, so that it survives a restart.
People hold a token signed with that secret; every pair they are shown comes with a *ticket* that ties their answer to that pair and those
sides. Each refusal is a ``Refusal`` with a code for the page and a sentence for the person. Leaves out which pair comes next
(``pair_queue``), and HTTP and JSON (``protocol``).
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from annotate import archive
from annotate.database import StoreError
from annotate.fields import check_uuid
from annotate.gate import RateLimit, Refusal, Seal, Standing, equal, new_code
from annotate.intake import AlreadyJudged
from annotate.mirror import Mirror, VotesRepo
from annotate.mirror import restore as bring_back
from annotate.pair_queue import COMPOSE, PairQueue, answers_of
from annotate.schedule import Plan
from annotate.store import ErasureReport, Store, open_store, utc_now
from annotate.types import (
    Added,
    Annotator,
    Assignment,
    Candidate,
    Event,
    Item,
    Judgment,
    Pair,
    new_id,
    pair_of,
)
from annotate.visit import Answer, CampaignSettings, Kept, Progress, Session, Shown
from annotate.writer import Clock
from pat_core.types import Role

PRIVACY = "1"  # the version of the notice that people agree to
LAST = 10  # answers that can be changed
ADVICE_EVERY = 10  # answers, so that nobody can tell which pair was a check
WRONG_TOKEN_SECONDS = 0.3
ANSWERS_AT_ONCE, ANSWERS_A_SECOND = 60, 2.0
JOINS_AT_ONCE, JOINS_A_SECOND = 400, 2.0  # of everybody: no address is kept, and a lecture hall joins at once
CONSENT = "Please agree to how your answers are kept, or leave this page: without that nothing is stored."
TOO_FAST = "That is faster than anybody can read: wait a moment, then send it again."
EXCHANGED = "The annotation database is being exchanged: try again in a moment."
CODE_NEEDED = "This campaign is for invited people: enter the code that was sent to you."

log = logging.getLogger(__name__)


class Campaign:
    """An open campaign; make it with ``open_campaign``. Every method may be called from any thread.

    ``fault`` is '' or the sentence why nothing can be saved; then ``store`` can only be read, or there is none and every call is refused.
    ``repo`` is where a Space keeps its votes; ``ephemeral`` says that the disk is gone at the next restart.
    """

    def __init__(
        self,
        path: Path,
        store: Store | None,
        owner_token: str,
        *,
        clock: Clock = utc_now,
        fault: str = "",
        repo: VotesRepo | None = None,
        ephemeral: bool = False,
    ) -> None:
        self.path = path
        self.fault = fault
        self._owner_token = owner_token
        self._clock = clock
        self._repo, self._ephemeral = repo, ephemeral
        self._store: Store | None = None
        self._seal: Seal | None = None
        self._queue: PairQueue | None = None
        self._mirror: Mirror | None = None
        if store is not None:
            self._use(store)
            self._mirror = Mirror(store, repo) if repo is not None else None
        self._switching = threading.Lock()
        self._inviting = threading.Lock()
        self._answers = RateLimit(ANSWERS_AT_ONCE, ANSWERS_A_SECOND)
        self._joins = RateLimit(JOINS_AT_ONCE, JOINS_A_SECOND)
        self._began = time.monotonic()

    def _use(self, store: Store) -> None:
        """Answer from ``store`` from now on; the secret is drawn when it is first written to."""
        secret = store.setting("secret", "")
        if not secret and not self.fault:
            secret = secrets.token_hex(32)
            store.set_setting("secret", secret)
        self._seal = Seal(secret) if secret else None
        self._queue = PairQueue(store, secret) if secret else None
        self._store = store

    @property
    def store(self) -> Store:
        if self._store is None:
            raise Refusal("store", self.fault or EXCHANGED)
        return self._store

    @property
    def seal(self) -> Seal:
        if self._seal is None:
            raise Refusal("store", self.fault or EXCHANGED)
        return self._seal

    @property
    def queue(self) -> PairQueue:
        if self._queue is None:
            raise Refusal("store", self.fault or EXCHANGED)
        return self._queue

    @property
    def read_only(self) -> str:
        """'' or the sentence why nothing can be saved."""
        return self.fault

    @property
    def loss_seconds(self) -> int | None:
        """How many seconds of votes a restart of the machine could lose; None where its disk stays."""
        if self._mirror is not None:
            state = self._mirror.state
            return max(state.window_seconds, state.loss_seconds)
        return int(time.monotonic() - self._began) if self._ephemeral else None

    def close(self) -> None:
        if self._mirror is not None:
            self._mirror.close()
        if self._store is not None:
            self._store.close()

    # Settings

    @property
    def settings(self) -> CampaignSettings:
        value = self.store.setting("campaign")
        return CampaignSettings(**(value | {"plan": Plan.from_json(value["plan"])})) if value else CampaignSettings()

    def save_settings(self, settings: CampaignSettings) -> None:
        self._writable().set_setting("campaign", asdict(settings))

    def _writable(self) -> Store:
        if self.fault:
            raise Refusal("store", self.fault)
        return self.store

    # People

    def join(self, nickname: str, code: str = "", *, lang: str = "en", perspective: str = "", consent: bool = False) -> Session:
        """Let somebody in. A code stands for one person: used again, it gives the same annotator, with the name they had."""
        if consent is not True:
            raise Refusal("consent", CONSENT)
        self._joins.take("everybody", "Many people are joining at this moment: try again in a few seconds.")
        if self.settings.access == "open" and not code:
            return self._welcome(nickname, None, lang, perspective)
        identity = self.seal.code(code)
        if identity not in self.store.setting("invites", []):
            raise Refusal("code", "This invite code is not known: check it for a mistyped letter, or ask whoever sent it to you.")
        return self._welcome(nickname, identity, lang, perspective)

    def sign_in(
        self, account: str, nickname: str, code: str = "", *, lang: str = "en", perspective: str = "", consent: bool = False
    ) -> Session:
        """Let somebody in whom a sign-in service has named; the same ``account`` is the same annotator, and is kept only as a hash.

        Where a code is asked for, an account that was never here does not replace it.
        """
        if consent is not True:
            raise Refusal("consent", CONSENT)
        identity = self.seal.account(account)
        if self.settings.access == "invite" and self.store.find(Annotator, identity_sha=identity) is None:
            return self.join(nickname, code, lang=lang, perspective=perspective, consent=consent)
        return self._welcome(nickname, identity, lang, perspective)

    def _welcome(self, nickname: str, identity: str | None, lang: str, perspective: str) -> Session:
        store = self._writable()
        with self._inviting:  # one code on two devices at once is one person
            there = store.find(Annotator, identity_sha=identity) if identity else None
            if there is None:
                name = nickname.strip() if isinstance(nickname, str) else nickname
                new = Annotator(new_id(), name, perspective=perspective, lang=lang, consent=PRIVACY, identity_sha=identity)
                there = store.add_annotator(new)
        return Session(there, self.seal.token(there.annotator_id))

    def annotator(self, token: object) -> Annotator:
        """The person who holds ``token``; refused for anything forged, and for people erased, paused or blocked since."""
        store = self.store
        if not (who := self.seal.holder(token)):
            raise Refusal("token", "This page does not know you any more: please enter your name again.")
        found = store.find(Annotator, annotator_id=who)
        if found is None:
            raise Refusal("token", "Your data was erased from this campaign. You can join again as somebody new.")
        if found.status != "active":
            raise Refusal("closed", "The owner has paused your access. Your answers so far are kept.")
        return found

    def trained(self, token: object) -> None:
        """Note, once, that somebody finished the practice round."""
        me = self.annotator(token).annotator_id
        if not self._is_trained(me):
            self._writable().record_event(Event("trained", me))

    def _is_trained(self, annotator_id: str) -> bool:
        return self.store.find(Event, annotator_id=annotator_id, kind="trained") is not None

    def progress(self, token: object) -> Progress:
        me = self.annotator(token).annotator_id
        judged = self.store.judged_pairs(me)
        held = {a.pair_id for a in self.store.all(Assignment, annotator_id=me)}  # on this person's screen, so open to them alone
        return Progress(len(judged), len((self.queue.open_ids(self.settings.plan) | held) - judged), self._is_trained(me))

    def n_open(self) -> int:
        """Pairs that still want somebody's answer."""
        return len(self.queue.open_ids(self.settings.plan))

    # Judging

    def next_pair(self, token: object) -> Shown | None:
        """What this person should judge now: what they left unanswered, else a new pair; None where nothing is left for them."""
        me = self.annotator(token)
        self._writable()
        settings = self.settings
        if settings.access == "invite" and me.perspective == COMPOSE and me.identity_sha is None:
            raise Refusal("token", CODE_NEEDED)  # a choice in Compose is no way round the invitation
        given = self.queue.take(me.annotator_id, settings.plan)
        return None if given is None else self._shown(*given)

    def _shown(self, assignment: Assignment, number: int, answer: Judgment | None = None) -> Shown:
        pair = self.store.find(Pair, pair_id=assignment.pair_id)
        right_id = pair.hi_id if assignment.shown_left_id == pair.lo_id else pair.lo_id
        left, right = (self.store.find(Candidate, candidate_id=c) for c in (assignment.shown_left_id, right_id))
        return Shown(assignment, self.store.find(Item, item_id=pair.item_id), left, right, self.seal.ticket(assignment), number, answer)

    def submit(self, token: object, answer: Answer) -> Kept:
        """Keep an answer; what is returned is on the disk. The same answer sent again gets the same reply.

        Raises Refusal for a pair this person was not shown, a ticket of another pair or side, and values that ``Judgment`` does not take;
        Standing where another answer stands.
        """
        me = self.annotator(token).annotator_id
        store = self._writable()
        self._answers.take(me, TOO_FAST)
        shown = store.find(Assignment, pair_id=answer.pair_id, annotator_id=me) if isinstance(answer.pair_id, str) else None
        if shown is None or not equal(answer.ticket, self.seal.ticket(shown)):
            raise Refusal("ticket", "This pair was not shown to you in this form: reload the page and answer the pair it shows.")
        changed = self._judgment_of(me, answer.revision_of)
        sent = self._judgment_of(me, answer.answer_id)
        if sent is None and answer.revision_of is not None and answer.revision_of not in {j.judgment_id for j in store.recent(me, LAST)}:
            raise Refusal("old", f"Only your last {LAST} answers can be changed, and each from how it stands now: reload the page.")
        guide = sent.guideline_version if sent else self.settings.guideline_version  # as when it was sent first
        judgment = self._judgment(shown, answer, guide, unblinded=changed is not None and changed.unblinded)
        try:
            kept = store.record_judgment(judgment)
        except AlreadyJudged as standing:
            raise Standing(standing.judgment) from standing
        except ValueError as error:
            raise Refusal("shape", f"{error}.") from error
        return Kept(kept, () if kept.revision_of else self._advice(kept))

    def _judgment_of(self, annotator_id: str, judgment_id: object) -> Judgment | None:
        found = self.store.find(Judgment, judgment_id=judgment_id) if isinstance(judgment_id, str) else None
        return found if found is not None and found.annotator_id == annotator_id else None

    def _judgment(self, shown: Assignment, answer: Answer, guideline_version: str, *, unblinded: bool) -> Judgment:
        try:
            return Judgment(
                answer.answer_id,
                shown.pair_id,
                shown.annotator_id,
                shown.shown_left_id,
                shown.order_key,
                answer.outcome,  # type: ignore[arg-type]
                answer.strength,  # type: ignore[arg-type]
                answer.dims,  # type: ignore[arg-type]
                answer.tags,
                answer.rationale,
                answer.ms_visible,
                answer.ms_total,
                answer.input_kind,  # type: ignore[arg-type]
                answer.ui_version,
                guideline_version,
                unblinded,
                answer.revision_of,
            )
        except ValueError as error:
            raise Refusal("shape", f"{error}.") from error

    def _advice(self, kept: Judgment) -> tuple[str, ...]:
        """What to tell whoever gave the answer ``kept``, asked at every tenth one. It is on the disk: no failure here takes that back."""
        try:
            me, store, plan = kept.annotator_id, self.store, self.settings.plan
            if len(store.judged_pairs(me)) % ADVICE_EVERY:
                return ()
            gold = [c.result for c in store.checks(me) if c.kind == "gold"][-plan.fail_window :]
            failed = gold.count("fail")
            noted = any(e.at >= kept.created_at for e in store.all(Event, annotator_id=me, kind="review"))  # the same answer sent again
            if failed >= plan.review_fails and not noted:
                store.record_event(Event("review", me, {"failed": failed, "of": len(gold)}))
            return ("guide",) if failed >= plan.warn_fails else ()
        except (Refusal, StoreError) as error:
            log.warning("an answer was kept, but its checks could not be looked at: %s", error)
            return ()

    def history(self, token: object) -> tuple[Shown, ...]:
        """Somebody's last ten answers, the newest first, as they were shown."""
        me = self.annotator(token).annotator_id
        n = len(self.store.judged_pairs(me))
        found = []
        for i, judgment in enumerate(self.store.recent(me, LAST)):
            assignment = self.store.find(Assignment, pair_id=judgment.pair_id, annotator_id=me)
            found.append(self._shown(assignment, n - i, judgment))
        return tuple(found)

    def erase_me(self, token: object) -> ErasureReport:
        """Remove whoever holds ``token``, with everything they wrote."""
        return self.erase(self.annotator(token).annotator_id)

    # A choice made in Compose

    def judge_here(
        self, token: object, item: Item, texts: tuple[Candidate, Candidate], answer: Answer, *, agent: Role | None = None, lang: str = "en"
    ) -> tuple[Session, Judgment]:
        """Keep a choice between two texts of a visitor's own run, the first of ``texts`` being A; marked as unblinded.

        Whoever has no valid token becomes a new annotator; ``item`` is theirs, so erasing them erases it. ``agent`` is set where only that
        agent's completion differs. A second choice between the same two texts revises the first.
        """
        store = self._writable()
        session = self._visitor(token, lang)
        me = session.annotator.annotator_id
        self._answers.take(me, TOO_FAST)
        try:
            item = replace(item, contributor_id=me)
            a, b = (replace(c, item_id=item.item_id) for c in texts)
            pair = pair_of(a, b, "one-factor" if agent else "system", agent=agent, origin=COMPOSE)
            if pair.lo_sha == pair.hi_sha:
                raise ValueError("the two texts are the same word for word; choose two that differ")
            there = store.find(Assignment, pair_id=pair.pair_id, annotator_id=me)
            shown = there or Assignment(pair.pair_id, me, a.candidate_id, "as the visitor chose")
            if shown.shown_left_id != a.candidate_id:
                answer = _turned(answer)
            standing = answers_of(store, me).get(pair.pair_id)
            revised = replace(answer, revision_of=standing.judgment_id if standing else None)
            judgment = self._judgment(shown, revised, self.settings.guideline_version, unblinded=True)
            if there is None:
                store.add_pairs([pair], [a, b], [item])
                store.lease(shown, 1.0)
            return session, store.record_judgment(judgment)
        except AlreadyJudged as standing:
            raise Standing(standing.judgment) from standing
        except Refusal:
            raise
        except ValueError as error:
            raise Refusal("shape", f"This choice was not saved: {error}.") from error

    def _visitor(self, token: object, lang: str) -> Session:
        try:
            me = self.annotator(token)
            return Session(me, self.seal.token(me.annotator_id))
        except Refusal as refusal:
            if refusal.code != "token":
                raise
        self._joins.take("everybody", "Many people are saving choices at this moment: try again in a few seconds.")
        return self._welcome("Visitor", None, lang, COMPOSE)

    # The owner

    def require_owner(self, token: object) -> None:
        """Raises Refusal unless ``token`` is the owner's, slowly, so that guessing takes for ever."""
        if not equal(token, self._owner_token):
            time.sleep(WRONG_TOKEN_SECONDS)
            raise Refusal("owner", "This is not the owner token: the app printed it when it started (or PAT_OWNER_TOKEN sets it).")

    def invite(self, n: int) -> tuple[str, ...]:
        """``n`` new invite codes; only their hashes are kept, so they are shown this once."""
        if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= 500:
            raise Refusal("shape", f"{n!r:.20} invitations cannot be made: choose from 1 to 500.")
        codes = tuple(new_code() for _ in range(n))
        store = self._writable()
        with self._inviting:
            store.set_setting("invites", sorted({*store.setting("invites", []), *map(self.seal.code, codes)}))
        return codes

    def add_made(self, items: Iterable[Item], candidates: Iterable[Candidate], pairs: Iterable[Pair]) -> Added:
        """Add pairs to judge; those of the same two texts are added once."""
        return self._writable().add_pairs(pairs, candidates, items)

    def erase(self, annotator_id: str) -> ErasureReport:
        """Remove a person from every file of the store (``Store.erase``)."""
        try:
            check_uuid("annotator id", annotator_id)
            report = self._writable().erase(annotator_id)
            if late := self._followed():
                raise StoreError(f"They are erased on this machine.{late}")
            return report
        except Refusal:
            raise
        except ValueError as error:
            raise Refusal("shape", f"{error}.") from error
        finally:
            if self._queue is not None:
                self._queue.forget()

    def restore(self, copy: Path) -> str:
        """Put a backup in the place of the database while the app runs; votes meanwhile are refused and sent again by the page."""
        with self._exchanged():
            done = archive.restore(self.path, copy)
        sentence = f"Restored to change {done.manifest.seq} with {done.manifest.rows['judgments']} answers."
        again = f" People erased since then were erased again: {len(done.erased)}." if done.erased else ""
        return f"{sentence}{again} What was there is in {done.aside}.{self._followed()}"

    @contextmanager
    def _exchanged(self) -> Iterator[None]:
        """The store closed while the block runs, then opened again whatever happened."""
        with self._switching:
            store, self._store = self._writable(), None
            mirror, self._mirror = self._mirror, None
            try:
                if mirror is not None:
                    mirror.close()
                store.close()
                yield
            finally:
                try:
                    self._use(opened := open_store(self.path, clock=self._clock))
                    self._mirror = Mirror(opened, self._repo, supersedes=mirror) if self._repo is not None else None
                except StoreError as error:
                    self.fault = str(error)

    def _followed(self) -> str:
        """'' once a Space's dataset has followed an erasure or a restore, its history too; else why it has not yet."""
        try:
            if self._mirror is not None:
                self._mirror.push()
        except StoreError as error:
            return f" The dataset has not followed yet; that is tried again every few minutes. {error}"
        return ""


def _turned(answer: Answer) -> Answer:
    other = {"A": "B", "B": "A"}
    dims = {k: other.get(v, v) for k, v in answer.dims.items()} if isinstance(answer.dims, dict) else answer.dims
    return replace(answer, outcome=other.get(answer.outcome, answer.outcome), dims=dims)


def open_campaign(
    path: Path, owner_token: str, *, clock: Clock = utc_now, repo: VotesRepo | None = None, ephemeral: bool = False
) -> Campaign:
    """The campaign in the database at ``path``, made if there is none, or brought back from ``repo`` first.

    Where it cannot be written (read-only disk, another program holds it) it can still be read; where it cannot be opened at all, every call
    is refused with the reason, and the rest of the app goes on. Nothing is overwritten.
    """
    try:
        if repo is not None:
            bring_back(path, repo)
        store = open_store(path, clock=clock)
        try:
            return Campaign(path, store, owner_token, clock=clock, repo=repo, ephemeral=ephemeral)
        except StoreError:
            store.close()
            raise
    except StoreError as error:
        fault = str(error)
    try:
        return Campaign(path, open_store(path, clock=clock, read_only=True), owner_token, clock=clock, fault=fault)
    except StoreError:
        return Campaign(path, None, owner_token, clock=clock, fault=fault)
