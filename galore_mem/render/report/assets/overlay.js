// Two runs over each other, step by step where both have as many.
const borders = (run) => [0, ...run.iterations.map(([, start]) => start).filter((start) => start > 0), run.line.events];
const haveSteps = () => runs.every((run) => run.iterations.length);

const aligned = (run) => {
  const steps = haveSteps() ? borders(run) : [0, run.line.events];
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
    const along = aligned(run);
    const drawn = pointsBetween(run.line, 0, run.line.events);
    const x = drawn.map((i) => along(run.line.event[i]));
    return [['live', run.line.live, 'solid', 2], ['reserved', run.line.reserved, 'dot', 1.4]].map(([kind, column, dash, width]) => ({
      type: 'scatter', mode: 'lines', name: `${'AB'[number]} ${kind}`, x, y: drawn.map((i) => column[i] / factor),
      line: { color: tones[number], dash, width, shape: 'hv' },
      customdata: drawn.map((i) => `<b>${'AB'[number]} ${kind}</b> ${size(column[i])} · ${plain(spanAt(run, run.phases, run.line.event[i]) || `event ${grouped(run.line.event[i])}`)}`),
      hovertemplate: '%{customdata}<extra></extra>',
    }));
  });
  const same = haveSteps();
  const longer = borders(first).length >= borders(second).length ? first : second;
  const names = same ? borders(longer).slice(0, -1).map((start, i) => (spanAt(longer, longer.iterations, start) ? `step ${i + Number(longer.iterations[0][1] === 0)}` : 'before')) : [];
  return {
    data,
    layout: baseLayout({
      hovermode: 'closest',
      xaxis: axis({ showgrid: same, ...(same && names.length <= 24 && { tickvals: names.map((_, i) => i), ticktext: names }),
        title: { text: same ? 'steps' : 'share of the run', font: { size: 12, color: colour('dim') } } }),
      yaxis: axis({ rangemode: 'tozero', ticksuffix: ` ${unit}` }),
    }),
    key: [...'AB'].flatMap((letter, number) => [
      [`background:${tones[number]}`, `${letter} live`],
      [`background:none;border-radius:0;height:0;border-top:2px dotted ${tones[number]};vertical-align:4px`, `${letter} reserved`],
    ]),
  };
};
