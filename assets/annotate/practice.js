/* Practice: answered like any pair, never sent */

function practiceTask(i, draft) {
  const round = CATALOGS[lang].practice;
  const banner = () => (i === 0 ? h('p', { class: 'ann-banner' }, t('practice.lead')) : null);
  return { kind: 'practice', name: `practice-${i}`, i, pair: pairOf(round[i]), draft: draft ?? readDraft('practice'), clock: new Clock(), banner, back: null, label: () => t('practice.number', { i: i + 1, of: round.length }) };
}

function startPractice() {
  const back = state.open?.kind === 'practice' ? state.open.back : state.open;
  const i = state.me.trained ? 0 : Math.min(Number(local.get('practice')) || 0, CATALOGS[lang].practice.length - 1);
  state.open = { ...practiceTask(i), back };
  dropHash();
  show('judge');
}

async function confirmPractice(task) {
  const round = CATALOGS[lang].practice;
  const made = round[task.i];
  if (!task.draft.outcome) return say(t('status.choose'));
  if (!task.verdict) {
    const { outcome, strength } = answerOf(task.draft);
    const agreed = made.accept.includes(outcome) || made.accept.includes(`${outcome} ${strength}`);
    task.verdictAt = performance.now();
    task.verdict = { title: agreed ? t('practice.yes') : verdictOf(made.expected), why: made.why };
    current.paint();
    say('');
    return current.verdict.focus({ preventScroll: true });
  }
  if (task.busy || performance.now() - task.verdictAt < 400) return; // a double press would skip what was said
  if (task.i + 1 < round.length) {
    if (!state.me.trained) local.set('practice', task.i + 1);
    state.open = { ...practiceTask(task.i + 1), back: task.back };
    return show('judge');
  }
  local.remove('practice');
  if (state.me.trained) {
    state.open = task.back;
    return state.open ? show('judge') : nextPair();
  }
  task.busy = true;
  current.paint();
  const reply = await insist('trained', { token: state.token }, t('lost.next'));
  task.busy = false;
  if (reply.refused) return refusedAway(reply.refused);
  state.me = reply.me;
  await nextPair();
  if (state.main === 'judge') say(t('practice.done'));
}
