// The cursor of the timeline: what happened at an event, in words and by category; by mouse and by keyboard.
const cursor = { at: 0 };

const legendNames = () => [...page.stack.filter((name) => current().line.by[name]?.some((value) => value > 0)), 'cached'];

const buildLegend = () => {
  const legend = byId('legend');
  legend.replaceChildren(...legendNames().map((name) => {
    const mark = element('i', name === 'cached' ? { style: 'background:repeating-linear-gradient(135deg,var(--dim) 0 1.5px,transparent 1.5px 5px)' } : { 'data-category': name });
    const chip = element('button', { type: 'button', 'aria-pressed': 'true', 'data-name': name }, mark, words(name), element('b'));
    chip.addEventListener('click', () => {
      view.hidden.has(name) ? view.hidden.delete(name) : view.hidden.add(name);
      chip.setAttribute('aria-pressed', String(!view.hidden.has(name)));
      drawTimeline();
    });
    return chip;
  }));
};

const showPoint = (i) => {
  const run = current();
  const { line } = run;
  cursor.at = i;
  const event = line.event[i];
  const where = [spanAt(run, run.iterations, event), spanAt(run, run.phases, event)].filter(Boolean).join(', ');
  const life = lifeWords(run, i);
  const parts = [element('b', {}, `Event ${grouped(event)}`), where ? `, ${where}` : ''];
  if (event === run.peak.event) parts.push(', ', element('b', {}, 'the peak'));
  if (life) parts.push(`: ${life.sign}${size(life.bytes)} of ${life.category}${life.where ? ` by ${life.where}` : ''}`);
  parts.push(`. Live ${size(line.live[i])}, allocated ${size(line.allocated[i])}, reserved ${size(line.reserved[i])}.`);
  byId('readout').replaceChildren(...parts);
  for (const chip of byId('legend').children) {
    const { name } = chip.dataset;
    const bytes = name === 'cached' ? Math.max(0, line.reserved[i] - line.allocated[i]) : line.by[name][i];
    chip.lastChild.textContent = size(bytes);
  }
};

const showPeak = () => showPoint(Math.max(0, lastAtMost(current().line.event, current().peak.event)));

const moveCursor = (change) => {
  const place = Math.max(0, view.drawn.findIndex((i) => i >= cursor.at)) + change;
  const next = Math.min(view.drawn.length - 1, Math.max(0, place));
  showPoint(view.drawn[next]);
  const figure = byId('timeline-plot');
  Plotly.Fx.hover(figure, [{ curveNumber: figure.data.length - 1, pointNumber: next }]);
};

const KEYS = {
  ArrowRight: () => moveCursor(1), ArrowLeft: () => moveCursor(-1),
  PageDown: () => moveCursor(50), PageUp: () => moveCursor(-50),
  Home: () => moveCursor(-Infinity), End: () => moveCursor(Infinity),
  p: () => { showPeak(); moveCursor(0); }, P: () => { showPeak(); moveCursor(0); },
  Escape: () => zoomTo(null),
};

const drawTimeline = () => {
  const made = timelineFigure();
  return Plotly.react(byId('timeline-plot'), made.data, made.layout, config);
};

const zoomTo = (span) => {
  if (span) [view.from, view.to] = [span[1], Math.max(span[1] + 1, span[2] - 1)];
  else wholeView();
  drawTimeline();
  for (const button of byId('zooms').querySelectorAll('button'))
    button.setAttribute('aria-pressed', String(span ? Number(button.dataset.start) === span[1] : !button.dataset.start));
};

const buildZooms = () => {
  const run = current();
  const button = (text, span) => {
    const made = element('button', { type: 'button', 'aria-pressed': String(!span), ...(span && { 'data-start': String(span[1]) }) }, text);
    made.addEventListener('click', () => zoomTo(span));
    return made;
  };
  const names = run.iterations.map((span, i) => [`${i + 1} ${run.names[span[0]]}`.replace(/^(\d+) step \1$/, 'step $1'), span]);
  const few = names.slice(0, isPhone() ? 2 : 6);
  const parts = [button('Whole run', null), ...few.map(([text, span]) => button(text, span))];
  if (names.length > few.length) {
    const choose = element('select', { 'aria-label': 'Zoom to a step' }, element('option', { value: '' }, 'another step …'),
      ...names.map(([text], i) => element('option', { value: String(i) }, text)));
    choose.addEventListener('change', () => zoomTo(choose.value === '' ? null : names[Number(choose.value)][1]));
    parts.push(choose);
  }
  byId('zooms').replaceChildren(...parts);
};

const eventAt = (line, x) => {
  if (!view.byTime || !line.time) return x;
  return line.event[Math.max(0, lastAtMost(line.time, x * 1e6 + line.time[0]))];
};

const startTimeline = () => {
  const figure = byId('timeline-plot');
  if (!figure) return;
  wholeView();
  buildLegend();
  buildZooms();
  draw('timeline-plot', timelineFigure);
  showPeak();
  const phases = PHASE_ORDER.filter((name) => current().phases.some((span) => current().names[span[0]] === name));
  byId('phases').replaceChildren(...phases.map((name) => element('span', {}, element('i', { style: `background:${page.phase_colours[name]}` }), name)));
  const switcher = byId('axis');
  switcher.hidden = !current().line.time;
  if (figure.dataset.wired) return;
  figure.dataset.wired = '1';
  figure.on('plotly_hover', ({ points }) => {
    const point = points.find(({ data }) => data.name === 'reserved');
    if (point) showPoint(view.drawn[point.pointNumber]);
  });
  figure.on('plotly_relayout', (change) => {
    const [from, to] = [change['xaxis.range[0]'], change['xaxis.range[1]']];
    if (from === undefined || to === undefined) return;
    const { line } = current();
    view.from = Math.max(0, Math.floor(eventAt(line, from)));
    view.to = Math.min(line.events - 1, Math.ceil(eventAt(line, to)));
    if (view.to <= view.from) wholeView();
    drawTimeline();
  });
  figure.addEventListener('dblclick', () => zoomTo(null));
  figure.addEventListener('keydown', (press) => {
    if (!KEYS[press.key] || press.ctrlKey || press.metaKey || press.altKey) return;
    press.preventDefault();
    KEYS[press.key]();
  });
  switcher.addEventListener('click', () => {
    view.byTime = !view.byTime;
    switcher.textContent = view.byTime ? 'By event' : 'By time';
    drawTimeline();
  });
};
