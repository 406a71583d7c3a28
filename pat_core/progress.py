"""How long work tells what it has done: one function type, and a bar in the terminal. Leaves out the bar in the page (``ui``)."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # (what is being done, steps done, steps in all); the last call has done == total


def terminal_progress() -> Progress:
    """A ``Progress`` that draws a bar with the time left on stderr; each new label or restart gets its own line."""
    from tqdm import tqdm

    bars: dict[str, tqdm] = {}

    def report(label: str, done: int, total: int) -> None:
        if label not in bars:
            bars[label] = tqdm(total=total, desc=label, unit="", dynamic_ncols=True, mininterval=0.5)
        bar = bars[label]
        bar.total = total
        bar.update(done - bar.n)
        if done >= total:
            bars.pop(label).close()

    return report
