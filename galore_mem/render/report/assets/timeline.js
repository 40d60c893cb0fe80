// The timeline: categories stacked, phases above, peak and runner-up marked.
const view = { from: 0, to: 0, byTime: false, hidden: new Set(), drawn: [] };
const PHASE_ORDER = ['forward', 'loss', 'backward', 'step', 'refresh'];

const wholeView = () => {
  const { line } = current();
  view.from = 0;
  view.to = Math.max(1, line.events - 1);
};
const place = (line, event) => {
  if (!view.byTime || !line.time) return event;
  return (line.time[Math.max(0, lastAtMost(line.event, event))] - line.time[0]) / 1e6;
};

const stackedTraces = (run, drawn, factor) => {
  const { line } = run;
  const x = drawn.map((i) => place(line, line.event[i]));
  const names = page.stack.filter((name) => line.by[name] && !view.hidden.has(name));
  const traces = names.map((name) => ({
    type: 'scatter', mode: 'lines', name: words(name), x, y: drawn.map((i) => line.by[name][i] / factor),
    stackgroup: 'held', line: { width: 0, shape: 'hv' }, fillcolor: page.colours[name], hoverinfo: 'skip',
  }));
  if (!view.hidden.has('cached'))
    traces.push({
      type: 'scatter', mode: 'lines', name: 'cached', x, stackgroup: 'held', hoverinfo: 'skip',
      y: drawn.map((i) => Math.max(0, line.reserved[i] - line.allocated[i]) / factor), line: { width: 0, shape: 'hv' },
      fillcolor: 'rgba(128,138,150,.10)',
      fillpattern: { shape: '/', size: 7, solidity: 0.12, fgcolor: colour('dim'), bgcolor: 'rgba(128,138,150,.06)' },
    });
  if (drawn.lowest)
    traces.push({
      type: 'scatter', mode: 'lines', name: 'lowest', x, y: drawn.lowest.map((i) => line.live[i] / factor), hoverinfo: 'skip',
      line: { width: 1, color: colour('ink'), dash: 'dot', shape: 'hv' }, opacity: 0.55,
    });
  traces.push({
    type: 'scatter', mode: 'lines', name: 'reserved', x, y: drawn.map((i) => line.reserved[i] / factor),
    line: { width: 1.6, color: colour('ink'), shape: 'hv' },
    customdata: drawn.map((i) => pointWords(run, i)), hovertemplate: '%{customdata}<extra></extra>',
  });
  return traces;
};

const pointWords = (run, i) => {
  const { line } = run;
  const event = line.event[i];
  const where = [spanAt(run, run.iterations, event), spanAt(run, run.phases, event)].filter(Boolean).join(', ');
  const life = lifeWords(run, i);
  return [
    `<b>event ${grouped(event)}</b>${where ? ` · ${plain(where)}` : ''}`,
    life && `${life.sign}${size(life.bytes)} ${plain(life.category)}`,
    life && life.where && plain(cut(life.where, 70)),
    `live ${size(line.live[i])} · reserved ${size(line.reserved[i])}`,
  ].filter(Boolean).join('<br>');
};

// Of more phases than a screen can show, those at evenly spaced places.
const MOST_BANDS = 900;
const bandPhases = (spans) => {
  if (spans.length <= MOST_BANDS) return spans;
  const width = (view.to - view.from) / MOST_BANDS;
  const shown = [];
  let at = 0;
  for (let i = 0; i < MOST_BANDS; i++) {
    const middle = view.from + (i + 0.5) * width;
    while (at < spans.length - 1 && spans[at][2] <= middle) at++;
    shown.push([spans[at][0], view.from + i * width, view.from + (i + 1) * width]);
  }
  return shown;
};

const phaseBand = (run) => {
  const seen = bandPhases(run.phases.filter(([, start, stop]) => stop > view.from && start <= view.to));
  if (!seen.length) return { traces: [], labels: [] };
  const edges = [Math.max(view.from, seen[0][1])];
  const shown = [];
  for (const [name, start, stop] of seen) {
    const [left, right] = [Math.max(start, view.from), Math.min(stop, view.to)];
    if (left > edges.at(-1)) { edges.push(left); shown.push(null); }
    if (right > edges.at(-1)) { edges.push(right); shown.push(run.names[name]); }
  }
  const order = [...PHASE_ORDER];
  const scale = order.flatMap((name, i) => [
    [i / order.length, page.phase_colours[name]], [(i + 1) / order.length, page.phase_colours[name]],
  ]);
  const z = shown.map((name) => (order.includes(name) ? order.indexOf(name) + 0.5 : null));
  const width = view.to - view.from || 1;
  const labels = shown.map((name, i) => [name, edges[i], edges[i + 1]])
    .filter(([name, a, b]) => name && name !== 'between' && (b - a) / width > (isPhone() ? 0.16 : 0.07)).slice(0, 16);
  return {
    traces: [{
      type: 'heatmap', x: edges.map((event) => place(run.line, event)), y: [0, 1], z: [z], yaxis: 'y2', zmin: 0,
      zmax: order.length, colorscale: scale, showscale: false, hoverinfo: 'skip', hoverongaps: false, xgap: 0,
    }],
    labels: labels.map(([name, a, b]) => ({
      text: name, x: (place(run.line, a) + place(run.line, b)) / 2, y: 0.5, yref: 'y2', showarrow: false,
      font: { size: 11, color: '#14171c' },
    })),
  };
};

const peakNotes = (run, factor) => {
  const notes = [[run.peak, 'peak'], [run.runner_up, 'runner-up']]
    .filter(([mark]) => mark && mark.event >= view.from && mark.event <= view.to).slice(0, isPhone() ? 1 : 2);
  const width = view.to - view.from || 1;
  const close = notes.length === 2 && Math.abs(notes[0][0].event - notes[1][0].event) / width < 0.28;
  return notes.map(([mark, name], i) => {
    const share = (mark.event - view.from) / width;
    const left = close ? (notes[i][0].event <= notes[1 - i][0].event) !== (notes[0][0].event === notes[1][0].event && i === 1) : share > 0.5;
    return {
      x: place(run.line, mark.event), y: mark.bytes / factor, text: `<b>${name}</b> ${size(mark.bytes)}`,
      showarrow: true, arrowhead: 0, arrowwidth: 1.2, arrowcolor: colour('ink'), ax: (left ? -1 : 1) * (isPhone() ? 24 : 52), ay: -30,
      xanchor: left ? 'right' : 'left', font: { size: 12, color: colour('ink') }, bgcolor: colour('card'),
      bordercolor: colour('line'), borderpad: 4,
    };
  });
};

const stepLines = (run) => {
  const inside = (event) => event > view.from && event < view.to;
  const line = (event, tone, dash) => ({
    type: 'line', yref: 'paper', y0: 0, y1: 0.93, x0: place(run.line, event), x1: place(run.line, event),
    line: { color: tone, width: dash ? 1 : 2, ...(dash && { dash }) },
  });
  const starts = run.iterations.map(([, start]) => start).filter(inside);
  return [
    ...(starts.length <= 60 ? starts.map((event) => line(event, colour('dim'), 'dot')) : []),
    ...run.ooms.filter((event) => event >= view.from && event <= view.to).map((event) => line(event, colour('bad'))),
  ];
};

const timelineFigure = () => {
  const run = current();
  const { line } = run;
  const drawn = pointsBetween(line, view.from, view.to);
  view.drawn = drawn;
  byId('thinned').hidden = !drawn.lowest && !(line.thinned && drawn.length * 1.5 < view.to - view.from);
  byId('thinned').textContent = drawn.lowest
    ? `Each point is the highest of about ${grouped((view.to - view.from) / drawn.length)} events, the dotted line the lowest of live memory. Zoom in for more.`
    : 'Of the events in view, the highest and lowest are drawn.';
  const top = Math.max(1, ...drawn.map((i) => line.reserved[i]));
  const [unit, factor] = unitFor(top);
  const band = phaseBand(run);
  const strip = band.traces.length > 0;
  const ooms = run.ooms.filter((event) => event >= view.from && event <= view.to).slice(0, 1).map((event) => ({
    x: place(line, event), y: strip ? 0.9 : 0.97, yref: 'paper', text: '<b>out of memory</b>', showarrow: false, xanchor: 'right', xshift: -6,
    font: { color: colour('bad'), size: 12 }, bgcolor: colour('card'),
  }));
  return {
    data: [...band.traces, ...stackedTraces(run, drawn, factor)],
    layout: baseLayout({
      dragmode: isPhone() ? false : 'zoom', hovermode: 'x', hoverdistance: -1,
      xaxis: axis({
        range: [place(line, view.from), place(line, view.to)], fixedrange: false, showgrid: false,
        title: { text: view.byTime ? 'seconds' : 'events', font: { size: 12, color: colour('dim') }, standoff: 8 },
        showspikes: true, spikemode: 'across', spikethickness: 1, spikedash: 'solid', spikecolor: colour('dim'), spikesnap: 'data',
      }),
      yaxis: axis({ range: [0, (top / factor) * 1.16], domain: [0, strip ? 0.93 : 1], ticksuffix: ` ${unit}`, nticks: 7 }),
      yaxis2: { domain: [0.945, 1], visible: false, fixedrange: true, range: [0, 1] },
      shapes: stepLines(run),
      annotations: [...band.labels, ...peakNotes(run, factor), ...ooms],
    }),
  };
};
