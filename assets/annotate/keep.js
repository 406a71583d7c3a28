/* What the browser keeps: who somebody is, drafts, an answer on its way, and how long a pair was on the screen.
   Where storage is blocked (private windows, frames) everything is kept until the page closes. */

const TOKEN = 'pat-annotate-token'; // shared with the choice below a run in Compose
const PREFIX = 'pat-annotate:';
const MAX_MS = 7 * 24 * 3600 * 1000;

function shelf(open) {
  const memory = new Map();
  return {
    text(name) {
      try {
        const kept = open().getItem(name);
        if (kept !== null) return kept;
      } catch { /* blocked: memory has it */ }
      return memory.get(name) ?? null;
    },
    put(name, text) {
      memory.set(name, text);
      try { open().setItem(name, text); } catch { /* blocked or full: memory has it */ }
    },
    drop(name) {
      memory.delete(name);
      try { open().removeItem(name); } catch { /* blocked: nothing was kept there */ }
    },
    /** Whether what is kept outlives the page. */
    lasts() {
      try {
        open().setItem(`${PREFIX}probe`, '');
        open().removeItem(`${PREFIX}probe`);
        return true;
      } catch {
        return false;
      }
    },
    get(name) {
      try { return JSON.parse(this.text(PREFIX + name)); } catch { return null; } // unreadable is as good as not there
    },
    set(name, value) { this.put(PREFIX + name, JSON.stringify(value)); },
    remove(name) { this.drop(PREFIX + name); },
    names(start) {
      const found = new Set(memory.keys());
      try { for (let i = 0; i < open().length; i++) found.add(open().key(i)); } catch { /* blocked: memory has them */ }
      return [...found].filter(name => name.startsWith(PREFIX + start)).map(name => name.slice(PREFIX.length));
    },
  };
}

const local = shelf(() => window.localStorage);
const session = shelf(() => window.sessionStorage);

const EMPTY = { outcome: null, strength: 'slightly', dims: {}, tags: [], rationale: '', visible: 0, total: 0 };

/** The draft under `name` with every field there and of its type, whatever an older page may have left. */
function readDraft(name) {
  const kept = local.get(`draft:${name}`);
  if (!kept || typeof kept !== 'object') return { ...EMPTY, dims: {}, tags: [] };
  return {
    outcome: OUTCOMES.includes(kept.outcome) ? kept.outcome : null,
    strength: kept.strength === 'clearly' ? 'clearly' : 'slightly',
    dims: Object.fromEntries(Object.entries(kept.dims ?? {}).filter(([d, a]) => DIMENSIONS.includes(d) && ['A', 'B', 'same'].includes(a))),
    tags: Array.isArray(kept.tags) ? TAGS.filter(tag => kept.tags.includes(tag)) : [],
    rationale: typeof kept.rationale === 'string' ? kept.rationale.slice(0, MAX_RATIONALE) : '',
    visible: Number(kept.visible) || 0,
    total: Number(kept.total) || 0,
  };
}

function keepDraft(task) {
  if (task.kind === 'practice') return;
  task.clock.tick();
  local.set(`draft:${task.name}`, { ...task.draft, visible: task.clock.visible, total: task.clock.total, kept: Date.now() });
}

/** Forget drafts of pairs that never came back, but for the newest ten. */
function pruneDrafts() {
  const kept = local.names('draft:').map(name => [local.get(name)?.kept ?? 0, name]).sort((a, b) => b[0] - a[0]);
  for (const [, name] of kept.slice(10)) local.remove(name);
}

function forgetPerson() {
  local.drop(TOKEN);
  for (const name of [...local.names('draft:'), 'unsent', 'practice']) local.remove(name);
}

/** Counts while its pair is the one on the screen: `total` always, `visible` only while the tab is. A sleeping machine counts as hidden. */
class Clock {
  constructor(visible = 0, total = 0) {
    Object.assign(this, { visible, total, running: false, since: 0, seen: false });
  }
  tick() {
    const now = performance.now();
    if (this.running) {
      const passed = now - this.since;
      this.total = Math.min(MAX_MS, this.total + passed);
      if (this.seen) this.visible = Math.min(this.total, this.visible + Math.min(passed, 15_000)); // asked every 5 s while seen
    }
    this.since = now;
    this.seen = document.visibilityState === 'visible';
  }
  run(running) {
    this.tick();
    this.running = running;
  }
}

/* Breaks: 25 minutes or 60 pairs since the last one, unless the campaign says otherwise; five minutes away from the page are a break too. */
const BREAK_SECONDS = 25 * 60, BREAK_PAIRS = 60, AWAY_MS = 5 * 60_000;

const work = {
  read() { return session.get('work') ?? this.restart(); },
  restart() {
    const fresh = { since: Date.now(), pairs: 0 };
    session.set('work', fresh);
    return fresh;
  },
  count() {
    const now = this.read();
    session.set('work', { ...now, pairs: now.pairs + 1 });
  },
  get due() {
    const { since, pairs } = this.read();
    const { break_seconds = BREAK_SECONDS, break_pairs = BREAK_PAIRS } = state.campaign;
    return Date.now() - since >= 1000 * break_seconds || pairs >= break_pairs;
  },
};
