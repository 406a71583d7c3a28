/* Requests to the server, which are `server_functions` of the component, and what is said while none is answered. */

const SOFT = ['busy', 'retry', 'store', 'failed']; // refusals that time may mend; everything else is final
const REPLY_MS = 20_000;

/** The server speaks English; the other catalogs have a sentence for each of its codes. */
const sentenceOf = ({ code, sentence }) => (has(`refused.${code}`) ? t(`refused.${code}`, { sentence }) : sentence);

/** The reply, or null where none came: Gradio swallows network errors and bad statuses, and a sleeping server never answers. */
async function ask(name, payload) {
  let timer = 0;
  const late = new Promise(resolve => { timer = setTimeout(resolve, REPLY_MS); });
  try {
    const reply = await Promise.race([server[name](payload), late]);
    return reply && typeof reply === 'object' ? reply : null;
  } catch (error) {
    console.warn(error);
    return null;
  } finally {
    clearTimeout(timer);
  }
}

/** Whether the server hands out this page: where it does and answers nothing else, it was started anew and knows the open one no longer. */
async function pageIsServed() {
  try {
    return (await fetch(location.pathname, { cache: 'no-store' })).ok;
  } catch {
    return false;
  }
}

/** The first final reply; until then what is wrong stands above the answers, with a button that tries at once. */
async function insist(name, payload, sentence) {
  for (let tries = 1; ; tries++) {
    const reply = await ask(name, payload);
    if (!element.isConnected) return new Promise(() => {}); // replaced by a newer page, which goes on
    if (reply && !SOFT.includes(reply.refused?.code)) {
      lost.hidden = true;
      lost.replaceChildren();
      return reply;
    }
    const renewed = !reply && tries > 2 && local.lasts() && await pageIsServed();
    await new Promise(resolve => {
      const again = () => { clearTimeout(timer); window.removeEventListener('online', again); resolve(); };
      const timer = setTimeout(again, Math.min(30, 2 ** tries) * 1000);
      window.addEventListener('online', again);
      const said = renewed ? t('lost.renewed') : reply ? sentenceOf(reply.refused) : sentence;
      const retry = renewed ? button(t('lost.reload'), () => location.reload()) : button(t('lost.again'), again);
      if (lost.textContent !== said + retry.textContent) lost.replaceChildren(h('p', {}, said), retry); // an alert is read out each time it changes
      else lost.lastChild.replaceWith(retry);
      lost.hidden = false;
    });
  }
}
