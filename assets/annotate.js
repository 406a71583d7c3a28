/* The Annotate page: what is on the screen, what goes to the server, and which key does what. Runs as `js_on_load` of one gr.HTML, after
   the parts in assets/annotate/. Nothing counts as saved before the server has said so; an answer on its way is kept in the browser under
   its id and sent again until there is a reply. */

const SIDES = ['guide', 'history', 'settings'];

const state = {
  campaign: {}, me: null, token: null, account: null, loss: null, readOnly: null, closed: null,
  typed: { nickname: '', code: '', perspective: '', consent: false },
  main: 'wait', // wait, welcome, guide, judge, done
  side: '', // what covers it: guide, history, settings
  open: null, // the task on the judging screen
};
const gone = new AbortController();
let current = null; // the screen
let lastInput = 'mouse';
let sidePushed = false;

const root = h('div', { class: window.parent === window ? 'ann ann-alone' : 'ann' });
const header = h('header', { class: 'ann-head' });
const notices = h('div', { class: 'ann-notices', 'aria-live': 'polite' });
const holder = h('div', { class: 'ann-screen' });
const status = h('p', { class: 'ann-status', role: 'status' });
const lost = h('div', { class: 'ann-lost', role: 'alert', hidden: true });
const slot = h('div', {});
const foot = h('div', { class: 'ann-foot' }, lost, status, slot);
root.append(header, notices, holder, foot);
element.replaceChildren(root);

/* Saying things */

let sayTimer = 0;

/** In the status line, and read out: emptied first, so that the same sentence twice is said twice. */
function say(sentence) {
  clearTimeout(sayTimer);
  status.textContent = '';
  sayTimer = setTimeout(() => { status.textContent = sentence; }, 40);
}

/** At the top, until the next answer is saved or it is dismissed. */
function notice(sentence, ...actions) {
  const box = h('div', { class: 'ann-notice' }, h('p', {}, sentence), h('div', { class: 'ann-buttons' }, actions, button(t('dismiss'), () => box.remove())));
  notices.replaceChildren(box);
}

/* Coming and going */

async function start() {
  state.token = local.text(TOKEN);
  const reply = await insist('begin', { token: state.token, lang }, t('lost.begin'));
  if (!reply.campaign) {
    state.closed = sentenceOf(reply.refused);
    return show('done');
  }
  Object.assign(state, { campaign: reply.campaign, me: reply.me, account: reply.account ?? null, loss: reply.loss_seconds, readOnly: reply.read_only });
  if (!state.me && reply.refused?.code === 'closed') {
    state.closed = sentenceOf(reply.refused);
    return show('done');
  }
  if (!state.me) {
    if (reply.refused) notice(sentenceOf(reply.refused));
    return show('welcome');
  }
  if (state.readOnly) {
    state.closed = t('welcome.read_only');
    return show('done');
  }
  await sendUnsent();
  await enter();
  readHash();
}

async function enter() {
  if (state.me.trained) await nextPair();
  else if (local.get('practice') > 0) startPractice();
  else show('guide');
}

/** Returns the sentence to show where it did not work. */
async function join(typed) {
  const reply = await ask('join', typed);
  if (!reply) return t('lost.join');
  if (reply.refused) return sentenceOf(reply.refused);
  forgetPerson();
  local.put(TOKEN, reply.token);
  Object.assign(state, { token: reply.token, me: reply.me });
  notices.replaceChildren();
  work.restart();
  await enter();
  return '';
}

async function leave() {
  const reply = await ask('leave', { token: state.token, sure: true });
  if (!reply) return t('lost.leave');
  if (reply.refused) return sentenceOf(reply.refused);
  signOut();
  notice(t('erase.done', { n: Number(reply.erased?.answers ?? reply.erased?.judgments ?? 0) }));
  return '';
}

function signOut() {
  forgetPerson();
  Object.assign(state, { token: null, me: null, open: null, typed: { nickname: '', code: '', perspective: '', consent: false } });
  dropHash();
  show('welcome');
}

function refusedAway(refused) {
  if (refused.code === 'token') {
    signOut();
    notice(sentenceOf(refused));
  } else {
    state.closed = sentenceOf(refused);
    show('done');
  }
}

/* Pairs */

async function nextPair() {
  state.closed = null;
  const reply = await insist('next', { token: state.token }, t('lost.next'));
  if (reply.refused) return refusedAway(reply.refused);
  if (reply.done) {
    Object.assign(state, { me: reply.me ?? state.me, open: null });
    return show('done');
  }
  if (reply.pair.answer) return changeAnswer(reply.pair);
  const draft = readDraft(reply.pair.pair);
  state.open = { kind: 'vote', name: reply.pair.pair, pair: reply.pair, draft, clock: new Clock(draft.visible, draft.total), label: () => t('judge.number', { number: reply.pair.number }) };
  show('judge');
  if (draft.outcome || draft.rationale) say(t('status.restored'));
  if (work.due && !draft.outcome) breakDialog();
}

async function confirm() {
  const task = state.open;
  if (task.kind === 'practice') return confirmPractice(task);
  if (task.busy) return;
  if (!task.draft.outcome) return say(t('status.choose'));
  task.busy = true;
  task.clock.run(false);
  const answer = answerOf(task.draft);
  const visible = Math.round(task.clock.visible);
  const payload = {
    id: newId(), pair: task.pair.pair, ticket: task.pair.ticket, ...answer,
    ms_visible: visible, ms_total: Math.max(visible, Math.round(task.clock.total)), input: lastInput, ui_version: props.ui_version,
    ...(task.revises ? { revision_of: task.revises } : {}),
  };
  local.set(`unsent:${payload.id}`, { payload, name: task.name });
  current.paint?.();
  say(t('status.saving'));
  const reply = await insist('submit', { token: state.token, ...payload }, t('lost.submit'));
  local.remove(`unsent:${payload.id}`);
  task.busy = false;
  if (reply.saved) return saved(task, answer, reply);
  await notSaved(task, reply);
}

/** The owner's own question, '' where it is the one that the page has words for in every language. */
function ownQuestion() {
  const asked = state.campaign.title ?? '';
  return asked === CATALOGS.en['welcome.title'] ? '' : asked;
}

function question() {
  return ownQuestion() || t('judge.question');
}

async function saved(task, answer, reply) {
  local.remove(`draft:${task.name}`);
  state.me = reply.me ?? state.me;
  notices.replaceChildren();
  const sentence = t(task.kind === 'edit' ? 'status.changed' : 'status.saved', { answer: inWords(answer) });
  say(sentence);
  if (task.kind === 'edit') return backFromEdit(task);
  work.count();
  for (const code of reply.advice ?? []) {
    if (code === 'break') breakDialog();
    else if (has(`advice.${code}`)) notice(t(`advice.${code}`), button(t('nav.guide'), () => openSide('guide')));
  }
  await nextPair();
}

async function notSaved(task, reply) {
  const { code } = reply.refused;
  say('');
  const standing = reply.standing ?? reply.refused.standing;
  if (code === 'judged') {
    local.remove(`draft:${task.name}`);
    notice(standing ? t('status.judged', { answer: inWords(standing) }) : sentenceOf(reply.refused));
    return nextPair();
  }
  if (code === 'token' || code === 'closed') return refusedAway(reply.refused);
  if (code === 'ticket' && task.kind === 'vote') {
    await nextPair(); // the draft is kept with its pair: the same pair comes back with it
    return notice(t('status.ticket'));
  }
  notice(sentenceOf(reply.refused));
  task.clock.run(true);
  current.paint?.();
}

/** Answers that were on their way when the page closed. */
async function sendUnsent() {
  for (const key of local.names('unsent:')) {
    const kept = local.get(key);
    if (!kept?.payload) { local.remove(key); continue; }
    const reply = await insist('submit', { token: state.token, ...kept.payload }, t('lost.submit'));
    local.remove(key);
    if (!reply.saved) { if (reply.refused?.code !== 'judged') notice(sentenceOf(reply.refused)); continue; }
    local.remove(`draft:${kept.name}`);
    state.me = reply.me ?? state.me;
    say(t('status.saved_late'));
  }
}

/* The last ten */

async function loadPast() {
  const reply = await ask('history', { token: state.token });
  return reply?.past ?? null;
}

async function undo() {
  if (state.open?.busy || state.open?.kind === 'edit' || state.open?.kind === 'practice') return;
  const past = await loadPast();
  if (!past) say(t('lost.history'));
  else if (!past.length) say(t('history.none'));
  else changeAnswer(past[0]);
}

function changeAnswer(pair) {
  const { answer } = pair;
  const name = `edit:${answer.id}`;
  const draft = readDraft(name);
  if (!draft.outcome) {
    Object.assign(draft, { outcome: answer.outcome, strength: answer.strength ?? 'slightly', dims: { ...answer.dims }, tags: TAGS.filter(tag => answer.tags?.includes(tag)), rationale: answer.rationale ?? '' });
  }
  const banner = () => h('p', { class: 'ann-banner' }, h('span', {}, t('edit.lead', { answer: inWords(answer), at: whenSaid(answer.at) })), button([key('Esc'), t('edit.cancel')], cancelEdit));
  const back = state.open?.kind === 'edit' ? state.open.back : state.open;
  state.open?.clock.run(false);
  say('');
  state.open = { kind: 'edit', name, pair, draft, clock: new Clock(draft.visible, draft.total), revises: answer.id, back, banner, label: () => t('judge.number', { number: pair.number }) };
  dropHash();
  show('judge');
}

function cancelEdit() {
  if (state.open.busy) return;
  local.remove(`draft:${state.open.name}`);
  backFromEdit(state.open);
  say(t('status.unchanged'));
}

function backFromEdit(task) {
  state.open = task.back;
  return state.open ? show('judge') : nextPair();
}

/* Screens */

const SCREENS = {
  wait: waitScreen,
  welcome: welcomeScreen,
  guide: guideScreen,
  history: historyScreen,
  settings: settingsScreen,
  done: doneScreen,
  judge: () => judgeScreen(state.open, { confirm, say, undo, cancel: state.open.kind === 'edit' ? cancelEdit : null }),
};

function show(name) {
  state.main = name;
  draw();
}

function draw(focus = true) {
  const name = (state.me && state.side) || state.main;
  root.lang = lang;
  root.dataset.screen = name;
  document.title = t('app.title');
  current = SCREENS[name]();
  holder.replaceChildren(current.node);
  slot.replaceChildren(...(current.dock ? [current.dock] : []));
  drawHeader();
  if (state.open) {
    state.open.clock.run(name === 'judge');
    state.open.back?.clock.run(false);
  }
  current.shown?.();
  if (!focus) return;
  if (current.focus) current.focus();
  else holder.querySelector('h1')?.focus({ preventScroll: true });
  if (root.getBoundingClientRect().top < 0) root.scrollIntoView({ block: 'start' });
}

function drawHeader() {
  const { me } = state;
  const inside = me && me.trained;
  const link = (label, k, press, name) => button([label, k ? key(k) : null], press, { class: 'ann-nav', 'aria-keyshortcuts': k || null, 'aria-current': name && state.side === name ? 'page' : null });
  const links = inside ? [
    me.judged > 0 ? link(t('nav.undo'), 'U', undo) : null,
    link(t('nav.history'), 'H', () => openSide('history'), 'history'),
    link(t('nav.guide'), '', () => openSide('guide'), 'guide'),
    link(t('nav.settings'), '', () => openSide('settings'), 'settings'),
    h('span', { class: 'ann-keys-only' }, link(t('nav.keys'), '?', keysDialog)),
  ] : me ? [link(t('nav.settings'), '', () => openSide('settings'), 'settings')] : [];
  const of = inside ? me.judged + me.left : 0;
  const progress = inside ? h('p', { class: 'ann-progress' },
    h('progress', { max: String(Math.max(1, of)), value: String(me.judged), 'aria-hidden': 'true' }),
    h('span', {}, t('progress.judged', { n: me.judged }), ' · ', t('progress.left', { n: me.left }))) : null;
  header.replaceChildren(h('span', { class: 'ann-brand' }, t('app.name')), ...(progress ? [progress] : []), h('nav', { 'aria-label': t('nav.label') }, links.filter(Boolean)));
}

function setLanguage(code) {
  lang = code;
  local.set('lang', code);
  if (state.open?.kind === 'practice') state.open = { ...practiceTask(state.open.i, state.open.draft), back: state.open.back };
  const focused = document.activeElement?.id;
  draw(false);
  if (focused) root.querySelector(`#${CSS.escape(focused)}`)?.focus();
}

/* What covers the main screen stands in the address after "#", so that the browser's Back leaves it and never the page */

function openSide(name) {
  if (!state.me || state.open?.busy || state.side === name) return;
  sidePushed = sidePushed || !state.side;
  location.hash = name;
}

function closeSide() {
  if (!state.side) return;
  if (sidePushed) { history.back(); return; }
  dropHash();
  draw();
}

function dropHash() {
  state.side = '';
  sidePushed = false;
  if (location.hash) history.replaceState(history.state, '', location.pathname + location.search);
}

function readHash() {
  const wanted = location.hash.slice(1);
  const side = state.me && SIDES.includes(wanted) ? wanted : '';
  if (side === state.side) return;
  say('');
  state.side = side;
  if (!side) sidePushed = false;
  draw();
}

/* Keys */

function onKey(event) {
  if (element.offsetParent === null || event.defaultPrevented || root.querySelector('dialog[open]')) return;
  const at = event.target instanceof Element ? event.target : document.body;
  if (at.isContentEditable || /^(input|textarea|select)$/i.test(at.tagName)) {
    if (root.contains(at) && current?.onKeyWhileTyping?.(event)) event.preventDefault();
    return;
  }
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (current?.onKey?.(event) || onAnyScreen(event)) event.preventDefault();
}

function onAnyScreen(event) {
  if (event.key === 'Escape' && state.side) {
    closeSide();
    return true;
  }
  if (event.key === '?' && state.main === 'judge') {
    keysDialog();
    return true;
  }
  if (event.shiftKey || !state.me?.trained) return false;
  const press = { h: () => (state.side === 'history' ? closeSide() : openSide('history')), u: undo }[event.key.toLowerCase()];
  press?.();
  return Boolean(press);
}

/* Listeners end with the component, however it went */

function listen(target, type, then, options = {}) {
  target.addEventListener(type, event => {
    if (element.isConnected) then(event);
    else gone.abort();
  }, { signal: gone.signal, ...options });
}

let hiddenSince = 0;

listen(document, 'keydown', () => { lastInput = 'keyboard'; }, { capture: true });
listen(document, 'pointerdown', event => { lastInput = event.pointerType === 'mouse' ? 'mouse' : 'touch'; }, { capture: true });
listen(document, 'keydown', onKey);
listen(window, 'hashchange', readHash);
listen(window, 'resize', () => current?.shown?.());
listen(window, 'pagehide', () => { if (state.open) keepDraft(state.open); });
listen(window, 'pageshow', event => { if (event.persisted && state.open?.kind === 'vote' && !state.open.busy) nextPair(); });
listen(document, 'visibilitychange', () => {
  if (state.open) keepDraft(state.open);
  if (document.visibilityState === 'hidden') hiddenSince = Date.now();
  else if (hiddenSince && Date.now() - hiddenSince >= AWAY_MS) work.restart();
});
const ticking = setInterval(() => {
  if (!element.isConnected) { clearInterval(ticking); gone.abort(); } else if (state.open && state.open.clock.running) keepDraft(state.open);
}, 5000);

lang = [local.get('lang'), ...(navigator.languages ?? [])].map(code => String(code ?? '').slice(0, 2)).find(code => code in CATALOGS) ?? 'en';
pruneDrafts();
draw(false);
start();
