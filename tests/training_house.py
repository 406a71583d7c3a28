"""A small campaign beside a tiny model, so that a real learning run in a process of its own ends in seconds.

The folder is shared by test modules: what the first run has read and embedded is there for the next.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from store_data import person, vote
from test_closed_loop import corpus
from tiny_gguf import save_tiny_gguf

from annotate.campaign import Campaign, open_campaign
from annotate.store import Store
from annotate.training import Order, Training
from annotate.types import Annotator, Candidate, Item, Pair, pair_of
from pat_core.types import Role

TOKEN = "the owner's long token"
SMALL = Order("human", ("style",), prompts=2, candidates=2, dev=4)
# Words that the tiny model knows, in its own order and in another, so that a round moves it a little and makes it no worse
LIKED = "warm loud quiet clean cheap old bright staff bed view, visit {}."
DISLIKED = "view bed staff bright old cheap clean quiet loud warm, visit {}."
N_PAIRS = 10


@dataclass
class House:
    """A home with a campaign of ``N_PAIRS`` pairs of the style agent: Ada prefers one text in each, Bo agrees on every second."""

    folder: Path
    campaign: Campaign
    ada: Annotator
    bo: Annotator
    data: Path
    env: dict[str, str]

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def training(self, **changes: object) -> Training:
        """Another one each time, as after a restart of the app."""
        given = {"home": self.home, "data": self.data, "db": self.campaign.path, "threads": 2, "env": self.env, "nice": 0}
        return Training(**given | changes)  # type: ignore[arg-type]

    def close(self) -> None:
        self.campaign.close()


def open_house(shared: Path, name: str) -> House:
    """A home in ``shared`` whose caches all houses share, with the campaign ``name``."""
    folder = shared / "training-house"
    data, model = folder / "tiny.jsonl", folder / "tiny.gguf"
    if not model.is_file():
        (folder / "home").mkdir(parents=True, exist_ok=True)
        rows = ({"user_id": r.user_id, "topic": r.topic, "title": r.title, "text": r.text, "rating": r.rating} for r in corpus().reviews)
        data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        save_tiny_gguf(model)
    campaign = open_campaign(folder / f"{name}.db", TOKEN)
    ada, bo = person(campaign.store, "Ada"), person(campaign.store, "Bo")
    for i in range(N_PAIRS):
        pair, liked = add_pair(campaign.store, i)
        for who in (ada, bo)[: 1 + i % 2]:
            vote(campaign.store, pair, who, "A" if pair.lo_id == liked else "B")
    env = {"PAT_MODEL": str(model), "PAT_ENGINE": "transformers", "PAT_DEVICE": "cpu", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    return House(folder, campaign, ada, bo, data, env)


def add_pair(store: Store, i: int, role: Role = "style") -> tuple[Pair, str]:
    """A pair of two texts of ``role``, the same prompt behind both, and which of its texts is liked."""
    item = Item(f"Review {i} of an inn", {"topic": "inn"})
    liked, other = (_text(item, text.format(i), reward, role) for text, reward in ((LIKED, 0.5), (DISLIKED, 0.3 + i % 3 / 5)))
    pair = pair_of(liked, other, "one-factor", agent=role)
    store.add_pairs([pair], [liked, other], [item])
    return pair, liked.candidate_id


def _text(item: Item, text: str, reward: float, role: Role) -> Candidate:
    done = {"role": role, "messages": [["user", f"Write: {item.prompt}"]], "prefix": "", "text": text}
    return Candidate(item.item_id, text, "pat", {"rewards": {"total": reward}, "completion": done})
