/* One pair: the reference, texts A and B, the overall question, and after it the details. The same screen serves votes, changes of earlier
   answers and the practice round; `task` says which, and its draft is the only state. */

const OUTCOMES = ['A', 'tie', 'both_bad', 'cannot_judge', 'B']; // as they stand on the screen
const OUTCOME_KEYS = { A: '1', tie: '0', both_bad: '9', cannot_judge: 'S', B: '2' };
const DIMENSIONS = ['style', 'topic', 'fluency'];
const DIMENSION_KEYS = { A: '1', same: '0', B: '2' };
const TAGS = ['voice', 'rhythm', 'words', 'opinion', 'details', 'off_topic', 'copied', 'errors', 'generic'];
const MAX_RATIONALE = 4000;

const isSided = outcome => outcome === 'A' || outcome === 'B';

/** What is sent: only what goes with the outcome. */
function answerOf(draft) {
  const judged = draft.outcome !== 'cannot_judge';
  return {
    outcome: draft.outcome,
    strength: isSided(draft.outcome) ? draft.strength : null,
    dims: judged ? { ...draft.dims } : {},
    tags: judged ? [...draft.tags] : [],
    rationale: draft.rationale.trim(),
  };
}

/** `act` is what the screen can ask for: confirm(), say(sentence), undo(), cancel(). */
function judgeScreen(task, act) {
  const { pair, draft } = task;
  const picks = new Map();
  const groups = {};
  let row = 'overall';

  function pick(name, label, press, about = {}) {
    const made = button(label, event => event.detail < 2 && press(), { 'aria-pressed': 'false', 'data-pick': name, ...about });
    picks.set(name, made);
    return made;
  }

  const rows = () => (draft.outcome && draft.outcome !== 'cannot_judge' ? ['overall', ...DIMENSIONS, 'reasons'] : ['overall']);

  function change(how, said) {
    if (task.busy || task.verdict) return;
    how();
    keepDraft(task);
    paint();
    if (said) act.say(said());
  }

  function choose(outcome, strength) {
    change(() => {
      if (strength || draft.outcome !== outcome) draft.strength = strength ?? 'slightly';
      draft.outcome = outcome;
    }, () => t('status.chosen', { answer: inWords(answerOf(draft)) }));
  }

  function answerDimension(name, answer) {
    change(() => {
      if (draft.dims[name] === answer) delete draft.dims[name];
      else draft.dims[name] = answer;
    }, () => t('status.detail', { name: t(`dim.${name}`), answer: draft.dims[name] ? t(`dim.${draft.dims[name]}`) : t('status.none') }));
  }

  function toggleTag(tag) {
    change(() => {
      draft.tags = draft.tags.includes(tag) ? draft.tags.filter(other => other !== tag) : TAGS.filter(x => x === tag || draft.tags.includes(x));
    }, () => t(draft.tags.includes(tag) ? 'status.tag_on' : 'status.tag_off', { tag: t(`tag.${tag}`) }));
  }

  /* The parts */

  const heading = h('h1', { id: 'ann-title', tabindex: '-1', class: 'ann-pair' },
    h('span', { class: 'ann-number' }, task.label()), ' ', h('span', {}, question()));

  const reference = referenceBlock(pair, act.say);

  function textBlock(side, parts, n) {
    const chosen = h('span', { class: 'ann-yours' }, t('judge.yours'));
    const article = h('article', { class: 'ann-text', 'aria-labelledby': `ann-text-${side}` },
      h('header', {}, h('h2', { id: `ann-text-${side}` }, h('span', { class: 'ann-letter', 'aria-hidden': 'true' }, side), h('span', { class: 'ann-sr' }, t('judge.text', { side }))), chosen),
      h('p', { class: 'ann-words', lang: pair.lang }, marked(parts)),
      h('p', { class: 'ann-count' }, t('judge.shared', { n })));
    groups[`text ${side}`] = article;
    return article;
  }

  const texts = h('section', { class: 'ann-texts', 'aria-label': t('judge.texts') }, textBlock('A', pair.left, pair.shared?.left ?? 0), textBlock('B', pair.right, pair.shared?.right ?? 0));

  function detailRow(name) {
    const group = h('div', { class: 'ann-row', role: 'group', tabindex: '-1', 'aria-labelledby': `ann-dim-${name} ann-ask-${name}` },
      h('p', {}, h('b', { id: `ann-dim-${name}` }, t(`dim.${name}`)), ' ', h('span', { id: `ann-ask-${name}` }, t(`dim.${name}.ask`))),
      h('div', { class: 'ann-segments' }, Object.entries(DIMENSION_KEYS).map(([answer, k]) =>
        pick(`${name} ${answer}`, [key(k), t(`dim.${answer}`)], () => { setRow(name); answerDimension(name, answer); }))));
    groups[name] = group;
    return group;
  }

  groups.reasons = h('div', { class: 'ann-row ann-reasons', role: 'group', tabindex: '-1', 'aria-labelledby': 'ann-reasons' },
    h('p', {}, h('b', { id: 'ann-reasons' }, t('reasons.title')), ' ', h('span', {}, t('reasons.hint'))),
    h('div', { class: 'ann-tags' }, TAGS.map((tag, i) =>
      pick(`tag ${tag}`, [key(String(i + 1)), t(`tag.${tag}`)], () => { setRow('reasons'); toggleTag(tag); }))));

  const rationale = h('textarea', { id: 'ann-rationale', rows: '2', maxlength: String(MAX_RATIONALE), 'aria-describedby': 'ann-rationale-hint',
    oninput: () => { draft.rationale = rationale.value; keepDraft(task); } });
  rationale.value = draft.rationale;
  groups.rationale = h('div', { class: 'ann-rationale' },
    h('label', { for: 'ann-rationale' }, t('rationale.label')), rationale,
    h('p', { id: 'ann-rationale-hint', class: 'ann-hint ann-keys-only' }, withKeys(t('rationale.hint'))));

  const dims = h('div', { class: 'ann-dims' }, DIMENSIONS.map(detailRow));
  const more = h('section', { class: 'ann-details', 'aria-label': t('details.label'), hidden: true },
    h('h2', {}, t('details.title'), ' ', h('span', {}, t('details.optional'))),
    h('div', { class: 'ann-columns' }, dims, h('div', {}, groups.reasons, groups.rationale)));

  /* The bar at the bottom */

  groups.overall = h('div', { class: 'ann-answers', role: 'group', tabindex: '-1', 'aria-label': question() }, OUTCOMES.map(outcome =>
    pick(outcome, [key(OUTCOME_KEYS[outcome]), h('span', {}, t(`answer.${outcome}.button`))], () => { setRow('overall'); choose(outcome); },
      { 'data-side': isSided(outcome) ? outcome : null, 'aria-keyshortcuts': OUTCOME_KEYS[outcome] })));
  const strength = h('div', { class: 'ann-strength', role: 'group', 'aria-label': t('strength.label') },
    h('span', { class: 'ann-strength-of', 'aria-hidden': 'true' }),
    h('div', { class: 'ann-segments' }, ['slightly', 'clearly'].map(name => pick(name, t(`strength.${name}.button`), () => choose(draft.outcome, name)))));
  const toDetails = button(t('details.jump'), () => more.scrollIntoView({ block: 'start' }), { class: 'ann-link ann-to-details' });
  const confirm = button('', event => event.detail < 2 && act.confirm(), { class: 'ann-primary', 'data-pick': 'confirm', 'aria-keyshortcuts': 'Enter' });
  const first = h('p', { class: 'ann-hint ann-first' }, t(`judge.first.${task.kind}`));
  const second = h('div', { class: 'ann-second' }, first, strength, toDetails, confirm); // always there, so that no button moves under a pointer
  const verdict = h('div', { class: 'ann-verdict', tabindex: '-1', hidden: true });
  const legend = h('p', { class: 'ann-legend-keys ann-keys-only' }, withKeys(t(task.kind === 'practice' ? 'legend.practice' : 'legend.judge')));
  const dock = h('div', { class: 'ann-dock', 'data-kind': task.kind }, verdict, groups.overall, second, legend);

  const node = h('div', { class: 'ann-judge' }, task.banner?.() ?? null, heading, reference.node, texts, more);

  /* How it looks now */

  function setRow(name) {
    row = name;
    paint();
  }

  function paint() {
    const { outcome } = draft;
    const pressed = name => picks.get(name).setAttribute('aria-pressed', String(
      name === outcome || (isSided(outcome) && name === draft.strength) || DIMENSIONS.some(d => name === `${d} ${draft.dims[d]}`) || draft.tags.some(tag => name === `tag ${tag}`)));
    for (const name of picks.keys()) pressed(name);
    for (const side of ['A', 'B']) groups[`text ${side}`].classList.toggle('ann-chosen', outcome === side);
    strength.hidden = !isSided(outcome);
    strength.firstChild.textContent = isSided(outcome) ? t('strength.of', { side: outcome }) : '';
    more.hidden = !outcome;
    dims.hidden = groups.reasons.hidden = outcome === 'cannot_judge';
    if (!rows().includes(row)) row = 'overall';
    for (const name of ['overall', ...DIMENSIONS, 'reasons']) {
      if (name === row && rows().length > 1) groups[name].setAttribute('aria-current', 'true');
      else groups[name].removeAttribute('aria-current');
    }
    const over = Boolean(task.verdict);
    groups.overall.hidden = over;
    first.hidden = Boolean(outcome);
    confirm.classList.toggle('ann-later', !outcome);
    toDetails.hidden = over || !outcome;
    if (over) strength.hidden = more.hidden = true;
    verdict.hidden = !over;
    if (over) verdict.replaceChildren(h('p', {}, h('b', {}, task.verdict.title), ' ', task.verdict.why));
    confirm.replaceChildren(key('Enter'), t(over ? 'confirm.next' : task.busy ? 'confirm.busy' : `confirm.${task.kind}`));
    confirm.setAttribute('aria-disabled', String(Boolean(task.busy)));
    dock.setAttribute('aria-busy', String(Boolean(task.busy)));
  }

  /* Keys */

  function move(step) {
    const all = rows();
    if (all.length < 2) {
      act.say(t('status.details_later'));
      return;
    }
    goTo(all[Math.max(0, Math.min(all.length - 1, all.indexOf(row) + step))]);
  }

  function goTo(name) {
    setRow(name);
    groups[name].focus({ preventScroll: true });
    if (name !== 'overall') groups[name].scrollIntoView({ block: 'nearest' });
  }

  /** By the place of the key, because Shift and other layouts change what it types; on-screen keyboards have no places. */
  function digit(event) {
    return /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1] ?? (!event.code && /^\d$/.test(event.key) ? event.key : null);
  }

  function onDigit(d, shift) {
    if (row === 'overall') {
      const outcome = OUTCOMES.find(name => OUTCOME_KEYS[name] === d);
      if (outcome) choose(outcome, isSided(outcome) ? (shift ? 'clearly' : 'slightly') : undefined);
      return Boolean(outcome);
    }
    if (row === 'reasons') {
      const tag = TAGS[Number(d) - 1];
      if (tag) toggleTag(tag);
      return Boolean(tag);
    }
    const answer = Object.keys(DIMENSION_KEYS).find(name => DIMENSION_KEYS[name] === d);
    if (answer) answerDimension(row, answer);
    return Boolean(answer);
  }

  const letters = {
    s: () => { setRow('overall'); choose('cannot_judge'); },
    d: () => move(1),
    e: () => reference.toggle(),
    r: () => {
      if (!draft.outcome) { act.say(t('status.details_later')); return; }
      rationale.focus();
      groups.rationale.scrollIntoView({ block: 'center' }); // clear of the bar at the bottom, with its hint
    },
    u: act.undo,
  };

  /** True where the key was for this screen. */
  function onKey(event) {
    const on = event.target.closest?.('button, a[href], summary');
    if (event.key === 'Enter') {
      const chosen = on?.dataset.pick && on.getAttribute('aria-pressed') !== 'false';
      if (on && !chosen) return false; // the button under the focus does what it says
      act.confirm();
      return true;
    }
    if (task.verdict) return false;
    if (event.key === 'Escape') {
      if (row !== 'overall') goTo('overall');
      else if (act.cancel) act.cancel();
      return true;
    }
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      if (rows().length < 2) return false; // the page scrolls
      move(event.key === 'ArrowDown' ? 1 : -1);
      return true;
    }
    const d = digit(event);
    if (d !== null) return onDigit(d, event.shiftKey);
    const press = event.shiftKey ? null : letters[event.key.toLowerCase()];
    press?.();
    return Boolean(press);
  }

  /** Inside the rationale only these two act. */
  function onKeyWhileTyping(event) {
    if (event.target !== rationale) return false;
    if (event.key === 'Escape') {
      goTo(row);
      return true;
    }
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && !event.repeat) {
      act.confirm();
      return true;
    }
    return false;
  }

  paint();
  return { node, dock, paint, onKey, onKeyWhileTyping, verdict, shown: () => reference.measure(), focus: () => heading.focus({ preventScroll: true }) };
}

/** The reference: the task in a line, then what is known of the person; long texts are cut until asked for. */
function referenceBlock(pair, say) {
  const { topic, title, rating, statements = [], samples = [], neighbors = [] } = pair.reference;
  const kinds = [['statements', statements], ['samples', samples], ['neighbors', samples.length || statements.length ? [] : neighbors]].filter(([, texts]) => texts.length);
  const quotes = (kind, texts) => h('div', { class: `ann-evidence ann-${kind}` },
    h('h3', {}, t(`reference.${kind}`, { n: texts.length })),
    h('ul', {}, texts.map(text => h('li', { lang: pair.lang }, h('p', {}, marked(text))))));
  const body = h('div', { class: 'ann-known' }, kinds.length ? kinds.map(([kind, texts]) => quotes(kind, texts)) : h('p', {}, t('reference.nothing')));
  const more = button('', () => toggle(), { class: 'ann-link', 'aria-expanded': 'false' });
  const facts = [
    h('b', {}, marked(topic)),
    plain(title) ? h('span', {}, t('reference.open_quote'), marked(title), t('reference.close_quote')) : null,
    typeof rating === 'number' ? h('span', { class: 'ann-rating' }, t(rating <= 5 ? 'reference.rating' : 'reference.points', { rating: new Intl.NumberFormat(lang).format(rating) })) : null,
  ];
  const node = h('section', { class: 'ann-reference', 'aria-labelledby': 'ann-reference' },
    h('h2', { id: 'ann-reference' }, h('span', { class: 'ann-label' }, t('reference.topic')), ' ', h('span', { lang: pair.lang }, facts.filter(Boolean).flatMap(fact => [fact, ' ']))),
    body,
    h('div', { class: 'ann-under' }, h('p', { class: 'ann-hint' }, h('mark', {}, t('legend.mark')), ' ', t('legend.marks')), more));

  let open = Boolean(session.get('whole'));

  function toggle() {
    if (more.hidden) { say(t('reference.all_there')); return; }
    open = !open;
    session.set('whole', open);
    measure();
  }

  /** Cuts or shows; the button is there only where something is cut. Needs the node to be on the page. */
  function measure() {
    node.classList.add('ann-cut');
    const cut = [...body.querySelectorAll('li')].some(li => li.offsetParent === null || li.firstChild.scrollHeight > li.firstChild.clientHeight + 1);
    node.classList.toggle('ann-cut', !open);
    more.hidden = !cut;
    more.setAttribute('aria-expanded', String(open));
    more.replaceChildren(key('E'), t(open ? 'reference.less' : 'reference.more'));
  }

  return { node, toggle, measure };
}
