/* Every screen but the pair: welcome, guide, last answers, settings, the end, and the dialogs. */

const PERSPECTIVES = ['', 'native', 'learner', 'domain'];
const LANGUAGES = Object.keys(CATALOGS);

const title = text => h('h1', { id: 'ann-title', tabindex: '-1' }, text);
const paragraph = (text, about = {}) => h('p', about, text);

function languageField(id) {
  const choice = h('select', { id, onchange: () => setLanguage(choice.value) },
    LANGUAGES.map(code => h('option', { value: code, lang: code, selected: code === lang }, CATALOGS[code].language)));
  return h('div', { class: 'ann-field' }, h('label', { for: id }, t('language.label')), choice);
}

/* Welcome */

function welcomeScreen() {
  const { campaign, typed, account } = state;
  const invite = campaign.access === 'invite';
  const field = (name, about = {}) => h('input', { id: `ann-${name}`, name, autocomplete: 'off', required: true, maxlength: '80', oninput: e => { typed[name] = e.target.value; }, ...about });
  const labelled = (input, label, hint) => h('div', { class: 'ann-field' }, h('label', { for: input.id }, label), hint ? h('p', { class: 'ann-hint', id: `${input.id}-hint` }, hint) : null, input);
  const nickname = field('nickname', { value: typed.nickname || account || null, 'aria-describedby': 'ann-nickname-hint', autocomplete: 'nickname', spellcheck: 'false' });
  const code = invite ? field('code', { value: typed.code || null, 'aria-describedby': 'ann-code-hint', autocapitalize: 'characters', spellcheck: 'false' }) : null;
  const perspective = h('select', { id: 'ann-perspective', onchange: () => { typed.perspective = perspective.value; } },
    PERSPECTIVES.map(name => h('option', { value: name, selected: name === typed.perspective }, t(`perspective.${name || 'none'}`))));
  const agree = h('input', { type: 'checkbox', id: 'ann-agree', onchange: () => { typed.consent = agree.checked; } });
  agree.checked = Boolean(typed.consent);
  const trouble = h('p', { class: 'ann-trouble', role: 'alert' });
  const start = h('button', { type: 'submit', class: 'ann-primary' }, t('welcome.start'));

  async function send(event) {
    event.preventDefault();
    if (start.getAttribute('aria-disabled') === 'true') return;
    trouble.textContent = '';
    const missing = [[nickname.value.trim(), nickname, 'welcome.need_nickname'], [!invite || code.value.trim(), code, 'welcome.need_code'], [agree.checked, agree, 'welcome.need_consent']].find(([there]) => !there);
    if (missing) {
      trouble.textContent = t(missing[2]);
      missing[1].focus();
      return;
    }
    start.setAttribute('aria-disabled', 'true');
    const sentence = await join({ nickname: nickname.value.trim(), code: invite ? code.value.trim() : '', consent: true, lang, perspective: perspective.value });
    start.removeAttribute('aria-disabled');
    if (sentence) trouble.textContent = sentence;
  }

  const privacy = ['kept', 'not_kept', 'use', 'browser', 'erase'].map(name => h('li', {}, t(`privacy.${name}`)));
  if (invite || account) privacy.splice(1, 0, h('li', {}, t('privacy.hash')));
  if (typeof state.loss === 'number') privacy.push(h('li', {}, t('privacy.loss', { n: Math.max(1, Math.round(state.loss / 60)) })));
  const form = h('form', { class: 'ann-form', novalidate: true, 'aria-label': t('welcome.form'), onsubmit: send },
    props.sign_in ? (account ? paragraph(t('welcome.signed_in', { account })) : signInLink()) : null,
    labelled(nickname, t('welcome.nickname'), t('welcome.nickname_hint')),
    code ? labelled(code, t('welcome.code'), t('welcome.code_hint')) : null,
    h('div', { class: 'ann-field' }, h('label', { for: 'ann-perspective' }, t('welcome.perspective'), ' ', h('span', { class: 'ann-optional' }, t('optional'))), perspective),
    languageField('ann-language'),
    h('section', { class: 'ann-privacy', 'aria-labelledby': 'ann-privacy' }, h('h2', { id: 'ann-privacy' }, t('privacy.title')), h('ul', {}, privacy)),
    h('label', { class: 'ann-check' }, agree, h('span', {}, t('welcome.consent'))),
    trouble,
    start);

  const node = h('div', { class: 'ann-welcome' },
    h('div', { class: 'ann-about' },
      title(ownQuestion() || t('welcome.title')),
      paragraph(ownQuestion() ? t('welcome.lead_own') : t('welcome.lead'), { class: 'ann-lead' }),
      h('ol', { class: 'ann-steps' }, [1, 2, 3].map(n => h('li', {}, h('b', {}, t(`welcome.step${n}`)), ' ', t(`welcome.step${n}_more`)))),
      paragraph(t('welcome.time'), { class: 'ann-hint' })),
    state.readOnly ? h('div', { class: 'ann-form' }, paragraph(t('welcome.read_only'))) : form);
  return { node, focus: () => {} };
}

/** Where a sign-in service is there; in a frame it opens beside it, because frames are denied its cookie. */
function signInLink() {
  const framed = window.parent !== window;
  return h('p', {}, h('a', { class: 'ann-sign-in', href: `login/huggingface?_target_url=${encodeURIComponent(location.pathname)}`, target: framed ? '_blank' : null, rel: framed ? 'noopener' : null }, t('welcome.sign_in')));
}

/* Guide */

function guideScreen() {
  const questions = ['style', 'topic', 'fluency'].map(name => h('li', {}, h('b', {}, t(`guide.${name}`)), ' ', t(`guide.${name}_more`)));
  const answers = ['sided', 'tie', 'both_bad', 'cannot_judge'].map(name => [h('dt', {}, t(`guide.answer.${name}`)), h('dd', {}, t(`guide.answer.${name}_more`))]);
  const trained = state.me?.trained;
  const go = trained ? button(t('guide.back'), closeSide, { class: 'ann-primary' }) : button(t('guide.practice'), startPractice, { class: 'ann-primary' });
  const node = h('div', { class: 'ann-guide' },
    title(t('guide.title')),
    paragraph(t('guide.lead'), { class: 'ann-lead' }),
    h('div', { class: 'ann-columns' },
      h('section', { 'aria-labelledby': 'ann-guide-q' },
        h('h2', { id: 'ann-guide-q' }, t('guide.questions')), h('ol', { class: 'ann-steps' }, questions), paragraph(t('guide.decide'))),
      h('section', { 'aria-labelledby': 'ann-guide-a' },
        h('h2', { id: 'ann-guide-a' }, t('guide.answers')), h('dl', {}, answers), paragraph(t('guide.care')))),
    h('section', { 'aria-labelledby': 'ann-guide-e' }, h('h2', { id: 'ann-guide-e' }, t('guide.examples')), CATALOGS[lang].examples.map(exampleBlock)),
    h('div', { class: 'ann-buttons' }, go, trained ? button(t('guide.practice_again'), startPractice) : paragraph(t('guide.practice_hint'), { class: 'ann-hint' })));
  return { node };
}

function exampleBlock(made, i) {
  const pair = pairOf(made);
  const text = (side, parts) => h('div', { class: made.expected.startsWith(side) ? 'ann-chosen' : '' }, h('h4', {}, side), h('p', {}, marked(parts)));
  return h('article', { class: 'ann-example', 'aria-labelledby': `ann-example-${i}` },
    h('h3', { id: `ann-example-${i}` }, t('guide.example', { i: i + 1 }), ' ', made.about),
    h('p', { class: 'ann-example-task' }, h('span', { class: 'ann-label' }, t('reference.samples', { n: 1 })), ' ', t('reference.open_quote'), marked(pair.reference.samples[0]), t('reference.close_quote')),
    h('p', { class: 'ann-example-task' }, h('span', { class: 'ann-label' }, t('reference.topic')), ' ', h('b', {}, marked(pair.reference.topic)), ' ',
      t('reference.open_quote'), marked(pair.reference.title), t('reference.close_quote'), ' ', h('span', { class: 'ann-rating' }, t('reference.rating', { rating: made.rating }))),
    h('div', { class: 'ann-two' }, text('A', pair.left), text('B', pair.right)),
    h('p', { class: 'ann-why' }, h('b', {}, verdictOf(made.expected)), ' ', made.why));
}

/** "B clearly" of the catalog in words. */
function verdictOf(expected) {
  const [outcome, strength] = expected.split(' ');
  return t('practice.verdict', { answer: inWords({ outcome, strength }) });
}

/* The last answers */

function historyScreen() {
  const list = h('ol', { class: 'ann-past' });
  const note = paragraph(t('history.loading'), { class: 'ann-hint', role: 'status' });
  const node = h('div', { class: 'ann-narrow' }, title(t('history.title')), paragraph(t('history.lead'), { class: 'ann-lead' }), note, list,
    h('div', { class: 'ann-buttons' }, button(t('back'), closeSide, { class: 'ann-primary' })));
  loadPast().then(past => {
    if (!past) { note.textContent = t('lost.history'); return; }
    note.textContent = past.length ? '' : t('history.none');
    list.replaceChildren(...past.map(pair => h('li', {},
      h('div', {},
        h('p', {}, h('b', { lang: pair.lang }, plain(pair.reference.topic)), ' ', h('span', { lang: pair.lang }, plain(pair.reference.title))),
        h('p', { class: 'ann-hint' }, t('history.item', { number: pair.number, answer: inWords(pair.answer), at: whenSaid(pair.answer.at) }))),
      button(t('history.change'), () => changeAnswer(pair), { 'aria-label': t('history.change_number', { number: pair.number }) }))));
  });
  return { node };
}

/* Settings */

function settingsScreen() {
  const me = state.me;
  const word = t('erase.word');
  const typed = h('input', { id: 'ann-erase', autocomplete: 'off', spellcheck: 'false', 'aria-describedby': 'ann-erase-hint' });
  const trouble = h('p', { class: 'ann-trouble', role: 'alert' });

  async function erase(event) {
    event.preventDefault();
    if (typed.value.trim().toLocaleUpperCase(lang) !== word) {
      trouble.textContent = t('erase.mistyped', { word });
      typed.focus();
      return;
    }
    trouble.textContent = '';
    const sentence = await leave();
    if (sentence) trouble.textContent = sentence;
  }

  const node = h('div', { class: 'ann-narrow' }, title(t('settings.title')),
    h('p', { class: 'ann-lead' }, t('settings.who', { nickname: me.nickname, n: me.judged })),
    languageField('ann-language-set'),
    h('section', { class: 'ann-part', 'aria-labelledby': 'ann-out' }, h('h2', { id: 'ann-out' }, t('out.title')), paragraph(t('out.lead')), button(t('out.button'), signOut)),
    h('section', { class: 'ann-part', 'aria-labelledby': 'ann-erase-title' }, h('h2', { id: 'ann-erase-title' }, t('erase.title')), paragraph(t('erase.lead')),
      h('form', { class: 'ann-erase', novalidate: true, onsubmit: erase },
        h('label', { for: 'ann-erase' }, t('erase.label', { word })), h('div', { class: 'ann-inline' }, typed, h('button', { type: 'submit', class: 'ann-danger' }, t('erase.button'))),
        h('p', { class: 'ann-hint', id: 'ann-erase-hint' }, t('erase.hint')), trouble)),
    h('div', { class: 'ann-buttons' }, button(t('back'), closeSide, { class: 'ann-primary' })));
  return { node };
}

/* The end, and waiting */

function doneScreen() {
  const n = state.me?.judged ?? 0;
  const sentence = state.closed ?? (n ? t('done.lead', { n }) : t('done.later'));
  const node = h('div', { class: 'ann-narrow' }, title(t(state.closed ? 'done.closed' : n ? 'done.title' : 'done.empty')), paragraph(sentence, { class: 'ann-lead' }),
    n && !state.closed ? paragraph(t('done.later')) : null,
    h('div', { class: 'ann-buttons' }, button(t('done.again'), nextPair, { class: 'ann-primary' }), n ? button(t('nav.history'), () => openSide('history')) : null));
  return { node };
}

function waitScreen() {
  return { node: h('p', { class: 'ann-wait', role: 'status' }, t('wait')), focus: () => {} };
}

/* Dialogs: the browser keeps the focus inside, closes them on Escape and gives the focus back */

function openDialog(name, heading, body, actions) {
  if (root.querySelector('dialog')) return;
  const dialog = h('dialog', { class: 'ann-dialog', 'aria-labelledby': `ann-${name}`, onclose: () => { dialog.remove(); if (!root.contains(document.activeElement)) current?.focus?.(); } },
    h('h2', { id: `ann-${name}` }, heading), body, h('div', { class: 'ann-buttons' }, actions(() => dialog.close())));
  root.append(dialog);
  dialog.showModal();
}

function keysDialog() {
  const rows = CATALOGS[lang].keys.map(([keys, meaning]) => h('tr', {}, h('th', { scope: 'row' }, withKeys(keys)), h('td', {}, withKeys(meaning))));
  openDialog('keys', t('keys.title'), [h('table', {}, h('tbody', {}, rows)), paragraph(t('keys.typing'), { class: 'ann-hint' })], close => [button(t('close'), close, { class: 'ann-primary' })]);
}

function breakDialog() {
  const minutes = Math.max(2, Math.round((Date.now() - work.read().since) / 60_000));
  work.restart();
  openDialog('break', t('break.title'), paragraph(t('break.lead', { minutes })), close => [button(t('break.go_on'), close, { class: 'ann-primary' })]);
}
