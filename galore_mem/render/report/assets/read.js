// The page's data: columns of differences become columns of values.
const page = JSON.parse(document.getElementById('data').textContent);

const summed = (column) => {
  let value = 0;
  return Float64Array.from(column, (step) => (value += step));
};

const decoded = (run) => {
  const line = run.timeline;
  const by = {};
  for (const name of page.stack) if (line.categories[name]) by[name] = summed(line.categories[name]);
  const event = summed(line.event);
  const allocated = summed(line.allocated);
  const live = new Float64Array(event.length);
  for (const column of Object.values(by)) for (let i = 0; i < live.length; i++) live[i] += column[i];
  by.remainders = allocated.map((value, i) => Math.max(0, value - live[i]));
  const reserved = summed(line.reserved);
  const spans = (columns) => {
    const [names, starts, stops] = columns.map(summed);
    return names ? Array.from(names, (name, i) => [name, starts[i], stops[i]]) : [];
  };
  return {
    ...run,
    phases: spans(run.phases),
    iterations: spans(run.iterations),
    line: {
      event, allocated, live, reserved, by,
      events: line.events,
      time: line.time_us ? summed(line.time_us) : null,
      life: summed(line.life),
      lives: line.lives.map(summed),
      thinned: line.is_thinned,
    },
    tensors: run.tensors.map(summed),
  };
};

const runs = page.runs.map(decoded);
const state = { run: 0 };
const current = () => runs[state.run];

const words = (name) => name.replaceAll('_', ' ');
// Ties go to the even digit, as in the tables above: 16.25 is 16.2 in both.
const grouped = (value, digits = 0) =>
  value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits, roundingMode: 'halfEven' });
const UNITS = [['GiB', 2 ** 30, 2], ['MiB', 2 ** 20, 1], ['KiB', 1024, 1]];
const size = (bytes) => {
  for (const [unit, factor, digits] of UNITS)
    if (Math.abs(bytes) >= factor) return `${grouped(bytes / factor, digits)} ${unit}`;
  return `${grouped(bytes)} B`;
};
const unitFor = (bytes) => UNITS.find(([, factor]) => bytes >= factor) ?? ['B', 1, 0];

// Plotly reads a little HTML in its texts: names from outside must not become any.
const plain = (text) => String(text).replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

const byId = (id) => document.getElementById(id);
const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made && typeof value !== 'string') made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
};

// The last index whose value is at most `wanted`; -1 where there is none.
const lastAtMost = (values, wanted) => {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= wanted) low = middle + 1;
    else high = middle;
  }
  return low - 1;
};

const spanAt = (run, spans, event) => {
  let low = 0;
  let high = spans.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (spans[middle][1] <= event) low = middle + 1;
    else high = middle;
  }
  const span = spans[low - 1];
  return span && event < span[2] ? run.names[span[0]] : '';
};

const lifeWords = (run, i) => {
  const code = run.line.life[i];
  if (!code) return '';
  const number = Math.abs(code) - 1;
  const [bytes, category, module, operator] = run.line.lives.map((column) => column[number]);
  const where = [run.names[operator], run.names[module]].filter(Boolean).join(' in ');
  return { sign: code > 0 ? '+' : '−', bytes, category: words(run.names[category]), where };
};
