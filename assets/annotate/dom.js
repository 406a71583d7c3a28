/* Elements, words and marked texts. Every text becomes a text node: nothing here or elsewhere on this page parses HTML. */

const CATALOGS = props.catalogs;
let lang = 'en';

/** The sentence for `key` in the reader's language; `{name}` is filled in, and with `n` the form for that number is taken. */
function t(key, values = {}) {
  const plural = 'n' in values ? `${key}.${new Intl.PluralRules(lang).select(values.n)}` : key;
  const sentence = CATALOGS[lang][plural] ?? CATALOGS[lang][key] ?? CATALOGS.en[plural] ?? CATALOGS.en[key] ?? '';
  return sentence.replace(/\{(\w+)\}/g, (all, name) => (name in values ? String(values[name]) : all));
}

const has = key => key in CATALOGS[lang];

/** An element; `on...` are listeners, null and false are left out, everything else is an attribute. */
function h(tag, about = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(about)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat(2).filter(child => child !== null && child !== undefined && child !== false));
  return node;
}

function button(label, press, about = {}) {
  return h('button', { type: 'button', ...about, onclick: press }, label);
}

/** Keys as they are printed on buttons; screen readers get them from `aria-keyshortcuts` instead. */
const key = label => h('kbd', { 'aria-hidden': 'true' }, label);

/** A sentence of the catalog in which `<...>` marks the keys. */
const withKeys = sentence => sentence.split(/(<[^>]+>)/).map(part => (part.startsWith('<') ? h('kbd', {}, part.slice(1, -1)) : part));

/** Segments `[text, marked]` of the server as text nodes and <mark>. */
function marked(segments) {
  return (typeof segments === 'string' ? [[segments, 0]] : segments ?? []).map(([text, mark]) => (mark ? h('mark', {}, text) : text));
}

const plain = segments => (typeof segments === 'string' ? segments : (segments ?? []).map(([text]) => text).join(''));

const WORD = /[\p{L}\p{N}]+(?:['’][\p{L}\p{N}]+)*/gu;

/** A text of the catalog as segments: asterisks stand around what is marked, and every other occurrence of a word in `words` is marked too. */
function segments(text, words = new Set()) {
  return text.split('*').flatMap((part, i) => {
    if (i % 2) return [[part, 1]];
    const found = [];
    let end = 0;
    for (const match of part.matchAll(WORD)) {
      if (!words.has(match[0].toLowerCase())) continue;
      found.push([part.slice(end, match.index), 0], [match[0], 1]);
      end = match.index + match[0].length;
    }
    return [...found, [part.slice(end), 0]];
  }).filter(([part]) => part !== '');
}

/** A pair of the catalog, whose texts have their shared words marked, in the form the server sends. */
function pairOf(made) {
  const shared = text => new Set(segments(text).filter(([, mark]) => mark).map(([word]) => word.toLowerCase()));
  const [left, right] = [shared(made.left), shared(made.right)];
  const both = new Set([...left, ...right]);
  const each = name => (made[name] ?? []).map(text => segments(text, both));
  return {
    lang,
    reference: { topic: segments(made.topic, both), title: segments(made.title, both), rating: made.rating ?? null, statements: each('statements'), samples: each('samples'), neighbors: each('neighbors') },
    left: segments(made.left), right: segments(made.right), shared: { left: left.size, right: right.size },
  };
}

/** An answer in words, such as "A, clearly". */
function inWords(answer) {
  const name = t(`answer.${answer.outcome}`);
  return answer.strength ? t('answer.with_strength', { answer: name, strength: t(`strength.${answer.strength}`) }) : name;
}

function whenSaid(at) {
  const moment = new Date(at);
  if (Number.isNaN(moment.getTime())) return '';
  const today = moment.toDateString() === new Date().toDateString();
  return new Intl.DateTimeFormat(lang, { ...(today ? {} : { day: 'numeric', month: 'short' }), hour: 'numeric', minute: '2-digit' }).format(moment);
}

/** Random ids also where the page came over plain http, in which case browsers have no `crypto.randomUUID`. */
function newId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map(b => b.toString(16).padStart(2, '0')).join('');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
