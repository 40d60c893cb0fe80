// Two runs over each other, step by step where both have as many.
const borders = (run) => [0, ...run.iterations.map(([, start]) => start).filter((start) => start > 0), run.line.events];

const aligned = (run, other) => {
  const mine = borders(run);
  const steps = mine.length === borders(other).length ? mine : [0, run.line.events];
  return (event) => {
    const step = Math.min(Math.max(0, lastAtMost(steps, event)), steps.length - 2);
    return step + (event - steps[step]) / Math.max(1, steps[step + 1] - steps[step]);
  };
};

const overlayFigure = () => {
  const [first, second] = runs;
  const top = Math.max(...runs.flatMap((run) => Array.from(run.line.reserved)));
  const [unit, factor] = unitFor(top);
  const tones = [colour('accent'), '#d55e00'];
  const data = runs.flatMap((run, number) => {
    const other = number ? first : second;
    const along = aligned(run, other);
    const drawn = pointsBetween(run.line, 0, run.line.events);
    const x = drawn.map((i) => along(run.line.event[i]));
    return [['live', run.line.live, 'solid', 2], ['reserved', run.line.reserved, 'dot', 1.4]].map(([kind, column, dash, width]) => ({
      type: 'scatter', mode: 'lines', name: `${'AB'[number]} ${kind}`, x, y: drawn.map((i) => column[i] / factor),
      line: { color: tones[number], dash, width, shape: 'hv' },
      customdata: drawn.map((i) => `<b>${'AB'[number]} ${kind}</b> ${size(column[i])} · ${plain(spanAt(run, run.phases, run.line.event[i]) || `event ${grouped(run.line.event[i])}`)}`),
      hovertemplate: '%{customdata}<extra></extra>',
    }));
  });
  const steps = borders(first);
  const same = steps.length === borders(second).length;
  const names = same ? steps.slice(0, -1).map((start) => spanAt(first, first.iterations, start) || 'before') : [];
  return {
    data,
    layout: baseLayout({
      hovermode: 'closest', showlegend: true, legend: { orientation: 'h', x: 0, y: 1.12, font: { color: colour('ink') } },
      margin: { l: 58, r: 14, t: 30, b: 40 },
      xaxis: axis({ showgrid: same, tickvals: same ? names.map((_, i) => i) : undefined, ticktext: same ? names : undefined,
        title: { text: same ? 'steps' : 'share of the run', font: { size: 12, color: colour('dim') } } }),
      yaxis: axis({ rangemode: 'tozero', ticksuffix: ` ${unit}` }),
    }),
  };
};
