"""One annotation campaign as the pages see it: who may judge, which pair comes next, what was answered, and what only the owner may do.

A campaign is a store, the secret behind its tokens and sides, and a few settings kept in the store itself, so that it survives a restart.
People hold a token signed with that secret; every pair they are shown comes with a *ticket* that ties their answer to that pair and those
sides. Each refusal is a ``Refusal`` with a code for the page and a sentence for the person. Leaves out HTTP and JSON (``protocol``).
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from annotate import archive
from annotate.database import StoreError
from annotate.fields import MAX_NAME, check_choice, check_text, check_uuid
from annotate.gate import RateLimit, Refusal, Seal, Standing, equal, new_code
from annotate.intake import AlreadyJudged
from annotate.mirror import Mirror, VotesRepo
from annotate.mirror import restore as bring_back
from annotate.schedule import Offer, Plan, Pool, capacity, chances, next_offer
from annotate.store import ErasureReport, Store, open_store, utc_now
from annotate.types import (
    Added,
    Annotator,
    Assignment,
    Candidate,
    Event,
    Exclusion,
    Item,
    Judgment,
    JudgmentQuery,
    Load,
    Pair,
    new_id,
    pair_of,
)
from annotate.writer import Clock
from pat_core.types import Role

Access = Literal["open", "invite"]

PRIVACY = "1"  # the version of the notice that people agree to
LAST = 10  # answers that can be changed
TRIES = 8  # at a pair that others take first
QUEUE_SECONDS = 1.0  # how old the picture of the queue may be; the store itself refuses a pair that is taken
WRONG_TOKEN_SECONDS = 0.3
ANSWERS_AT_ONCE, ANSWERS_A_SECOND = 60, 2.0
JOINS_AT_ONCE, JOINS_A_SECOND = 150, 2.0
CONSENT = "Please agree to how your answers are kept, or leave this page: without that nothing is stored."

TheirAnswers = dict[str, Judgment]


@dataclass(frozen=True, slots=True)
class CampaignSettings:
    """What the owner decides. ``access`` *open* lets anybody in with a nickname, *invite* asks for a code."""

    title: str = "Which text sounds more like this person?"
    access: Access = "open"
    guideline_version: str = "1"
    plan: Plan = field(default_factory=Plan)

    def __post_init__(self) -> None:
        check_text("title", self.title, MAX_NAME, empty=False)
        check_choice("access", self.access, get_args(Access))
        check_text("guideline_version", self.guideline_version, MAX_NAME, empty=False)


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who judges, with the token that proves it."""

    annotator: Annotator
    token: str


@dataclass(frozen=True, slots=True)
class Progress:
    """``judged`` answers so far, ``left`` pairs that still wait for this person, ``trained`` whether the practice round is over."""

    judged: int
    left: int
    trained: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """A pair as one person sees it: ``left`` is A. ``answer`` is theirs where they gave one; ``number`` counts their pairs from 1."""

    assignment: Assignment
    item: Item
    left: Candidate
    right: Candidate
    ticket: str
    number: int
    answer: Judgment | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody decided about a pair they were shown; the names are those of ``Judgment``, which checks them."""

    answer_id: str
    pair_id: str
    ticket: str
    outcome: str
    strength: str | None = None
    dims: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    rationale: str = ""
    ms_visible: int | None = None
    ms_total: int | None = None
    input_kind: str = "mouse"
    ui_version: str = ""
    revision_of: str | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as committed, and ``advice`` for the person: "guide" to read the guide once more."""

    judgment: Judgment
    advice: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Queue:
    """How far every pair is, as of a moment ago; ``open_ids`` want another judge."""

    read_at: float
    pool: Pool
    loads: dict[str, Load]
    open_ids: frozenset[str]


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
        self._store = store
        self._owner_token = owner_token
        self._clock = clock
        self._repo, self._ephemeral = repo, ephemeral
        self._mirror = Mirror(store, repo) if store is not None and repo is not None else None
        self._pool: tuple[tuple[int, frozenset[str]], Pool] | None = None
        self._queue: Queue | None = None
        self._turns = tuple(threading.Lock() for _ in range(64))
        self._switching = threading.Lock()
        self._answers = RateLimit(ANSWERS_AT_ONCE, ANSWERS_A_SECOND)
        self._joins = RateLimit(JOINS_AT_ONCE, JOINS_A_SECOND)
        self._seal: Seal | None = None
        self._began = time.monotonic()

    @property
    def store(self) -> Store:
        if self._store is None:
            raise Refusal("store", self.fault or "The annotation database is being exchanged: try again in a moment.")
        return self._store

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

    @property
    def seal(self) -> Seal:
        """Made from the secret in the store, which is drawn at the first start."""
        store = self.store
        if self._seal is None:
            if not (secret := store.setting("secret", "")):
                secret = secrets.token_hex(32)
                self._writable().set_setting("secret", secret)
            self._seal = Seal(secret)
        return self._seal

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

    def sign_in(self, account: str, nickname: str, *, lang: str = "en", consent: bool = False) -> Session:
        """Let somebody in whom a sign-in service has named; the same ``account`` is the same annotator, and is kept only as a hash."""
        if consent is not True:
            raise Refusal("consent", CONSENT)
        return self._welcome(nickname, self.seal.account(account), lang, "")

    def _welcome(self, nickname: str, identity: str | None, lang: str, perspective: str) -> Session:
        store = self._writable()
        there = store.find(Annotator, identity_sha=identity) if identity else None
        if there is None:
            name = nickname.strip() if isinstance(nickname, str) else nickname
            there = store.add_annotator(
                Annotator(new_id(), name, perspective=perspective, lang=lang, consent=PRIVACY, identity_sha=identity)  # type: ignore[arg-type]
            )
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
        """Note that somebody finished the practice round."""
        self._writable().record_event(Event("trained", self.annotator(token).annotator_id))

    def progress(self, token: object) -> Progress:
        me = self.annotator(token)
        judged = self._judged(me.annotator_id)
        trained = self.store.find(Event, annotator_id=me.annotator_id, kind="trained") is not None
        return Progress(len(judged), len(self._current_queue().open_ids - judged.keys()), trained)

    def n_open(self) -> int:
        """Pairs that still want somebody's answer."""
        return len(self._current_queue().open_ids)

    def _judged(self, annotator_id: str) -> TheirAnswers:
        query = JudgmentQuery(annotator_id=annotator_id, judge_kind=None, excluded=True)
        return {j.pair_id: j for j in self.store.judgments(query)}

    # Judging

    def next_pair(self, token: object) -> Shown | None:
        """What this person should judge now: what they left unanswered, else a new pair; None where nothing is left for them."""
        me = self.annotator(token).annotator_id
        store = self._writable()
        with self._turns[hash(me) % len(self._turns)]:  # two tabs of one person get the same pair
            judged, assigned, plan = self._judged(me), self._assigned(me), self.settings.plan
            for fresh in (False, *[True] * TRIES):
                queue = self._current_queue(fresh)
                offer = next_offer(me, pool=queue.pool, loads=queue.loads, assigned=assigned, judged=judged, plan=plan)
                if offer is None and fresh:
                    return None
                if offer is not None and (assignment := self._lease(store, me, offer, queue, plan)) is not None:
                    return self._shown(assignment, len(judged) + 1)
        raise Refusal("busy", "Many people are taking pairs at this moment: try again in a few seconds.")

    def _assigned(self, annotator_id: str) -> tuple[Assignment, ...]:
        return tuple(sorted(self.store.all(Assignment, annotator_id=annotator_id), key=lambda a: a.leased_at))

    def _lease(self, store: Store, annotator_id: str, offer: Offer, queue: Queue, plan: Plan) -> Assignment | None:
        """The pair, reserved for this person; None where others took it a moment ago, or this person answered it in another tab."""
        pair_id = offer.pair.pair_id
        if offer.new:
            store.add_pairs([offer.pair])
        load = queue.loads.get(pair_id) or Load(pair_id, 0, 0)
        room = None if offer.resumed else capacity(offer.pair, load, plan, self.seal.secret)
        assignment = Assignment(pair_id, annotator_id, offer.shown_left_id, offer.order_key, offer.propensity)
        try:
            kept = store.lease(assignment, plan.lease_seconds, room)
        except AlreadyJudged:
            return None
        if kept is not None and not offer.resumed:
            queue.loads[pair_id] = replace(load, n_leased=load.n_leased + 1)  # known to everybody before the queue is read anew
        return kept

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
        self._answers.take(me, "That is faster than anybody can read: wait a moment, then send it again.")
        shown = store.find(Assignment, pair_id=answer.pair_id, annotator_id=me) if isinstance(answer.pair_id, str) else None
        if shown is None or not equal(answer.ticket, self.seal.ticket(shown)):
            raise Refusal("ticket", "This pair was not shown to you in this form: reload the page and answer the pair it shows.")
        if answer.revision_of is not None and answer.revision_of not in {j.judgment_id for j in store.recent(me, LAST)}:
            self._require_sent_before(answer)
        judgment = self._judgment(shown, answer)
        try:
            kept = store.record_judgment(judgment)
        except AlreadyJudged as standing:
            raise Standing(standing.judgment) from standing
        except ValueError as error:
            raise Refusal("shape", f"{error}.") from error
        return Kept(kept, self._advice(me))

    def _require_sent_before(self, answer: Answer) -> None:
        if not isinstance(answer.answer_id, str) or self.store.find(Judgment, judgment_id=answer.answer_id) is None:
            raise Refusal("old", f"Only your last {LAST} answers can be changed, and each from how it stands now: reload the page.")

    def _judgment(self, shown: Assignment, answer: Answer, *, unblinded: bool = False) -> Judgment:
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
                self.settings.guideline_version,
                unblinded,
                answer.revision_of,
            )
        except ValueError as error:
            raise Refusal("shape", f"{error}.") from error

    def _advice(self, annotator_id: str) -> tuple[str, ...]:
        """Asked only at every tenth answer, so that nobody can tell which pair was a check."""
        plan, n = self.settings.plan, len(self._judged(annotator_id))
        if not n or n % LAST:
            return ()
        gold = [c.result for c in self.store.checks(annotator_id) if c.kind == "gold"][-plan.fail_window :]
        failed = gold.count("fail")
        if failed >= plan.review_fails:
            self.store.record_event(Event("review", annotator_id, {"failed": failed, "of": len(gold)}))
        return ("guide",) if failed >= plan.warn_fails else ()

    def history(self, token: object) -> tuple[Shown, ...]:
        """Somebody's last ten answers, the newest first, as they were shown."""
        me = self.annotator(token).annotator_id
        n = len(self._judged(me))
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
        self._answers.take(me, "That is faster than anybody can read: wait a moment, then send it again.")
        try:
            item = replace(item, contributor_id=me)
            a, b = (replace(c, item_id=item.item_id) for c in texts)
            pair = pair_of(a, b, "one-factor" if agent else "system", agent=agent, origin="compose")
            if pair.lo_sha == pair.hi_sha:
                raise ValueError("the two texts are the same word for word; choose two that differ")
            store.add_pairs([pair], [a, b], [item])
            shown = store.find(Assignment, pair_id=pair.pair_id, annotator_id=me)
            if shown is None:
                shown = Assignment(pair.pair_id, me, a.candidate_id, "as the visitor chose")
                store.lease(shown, 1.0)
            elif shown.shown_left_id != a.candidate_id:
                answer = _turned(answer)
            standing = self._judged(me).get(pair.pair_id)
            revised = replace(answer, revision_of=standing.judgment_id if standing else None)
            return session, store.record_judgment(self._judgment(shown, revised, unblinded=True))
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
        return self._welcome("Visitor", None, lang, "compose")

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
            if self._mirror is not None:
                self._mirror.push()  # also takes what it has replaced out of the dataset and its history
            return report
        except Refusal:
            raise
        except ValueError as error:
            raise Refusal("shape", f"{error}.") from error
        finally:
            self._pool = self._queue = None

    def restore(self, copy: Path) -> str:
        """Put a backup in the place of the database while the app runs; votes meanwhile are refused and sent again by the page."""
        with self._exchanged():
            done = archive.restore(self.path, copy)
        sentence = f"Restored to change {done.manifest.seq} with {done.manifest.rows['judgments']} answers."
        again = f" {len(done.erased)} people erased since then were erased again." if done.erased else ""
        return f"{sentence}{again} What was there is in {done.aside}."

    @contextmanager
    def _exchanged(self) -> Iterator[None]:
        """The store closed while the block runs, then opened again whatever happened."""
        with self._switching:
            store, self._store = self._writable(), None
            if self._mirror is not None:
                self._mirror.close()
            store.close()
            try:
                yield
            finally:
                self._pool = self._queue = None
                try:
                    self._store = open_store(self.path, clock=self._clock)
                    self._seal = None
                    self._mirror = Mirror(self._store, self._repo) if self._repo is not None else None
                except StoreError as error:
                    self.fault = str(error)

    # What is asked again and again

    def _current_queue(self, fresh: bool = False) -> Queue:
        queue, now = self._queue, time.monotonic()
        if queue is None or fresh or now - queue.read_at > QUEUE_SECONDS:
            plan, pool = self.settings.plan, self._current_pool()
            loads = {load.pair_id: load for load in self.store.loads()}
            queue = self._queue = Queue(now, pool, loads, frozenset(chances(pool, loads, (), plan)))
        return queue

    def _current_pool(self) -> Pool:
        """All pairs that count, kept in memory: a pair never changes, so only their number and the ledger are asked again."""
        excluded = frozenset(e.pair_id for e in self.store.all(Exclusion, active=True) if e.pair_id)
        key = (self.store.counts()["pairs"], excluded)
        if self._pool is None or self._pool[0] != key:
            systems = {c.candidate_id: c.system for c in self.store.all(Candidate)}
            pairs = (p for p in self.store.all(Pair) if p.pair_id not in excluded)
            self._pool = (key, Pool.of(pairs, systems, self.seal.secret))
        return self._pool[1]


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
        return Campaign(path, open_store(path, clock=clock), owner_token, clock=clock, repo=repo, ephemeral=ephemeral)
    except StoreError as error:
        fault = str(error)
    try:
        return Campaign(path, open_store(path, clock=clock, read_only=True), owner_token, clock=clock, fault=fault)
    except StoreError:
        return Campaign(path, None, owner_token, clock=clock, fault=fault)
