// How long each step took.
const stepsFigure = () => {
  const { steps } = current();
  const longest = Math.max(0, ...steps.map(([, seconds]) => Object.values(seconds).reduce((sum, value) => sum + value, 0)));
  const [unit, factor] = longest >= 1 ? ['s', 1] : ['ms', 1e-3];
  const names = ['forward', 'loss', 'backward', 'step', 'refresh', 'whole'].filter((name) => steps.some(([, seconds]) => name in seconds));
  const x = steps.map(([name], i) => plain(name) || `step ${i + 1}`);
  return {
    data: names.map((name) => ({
      type: 'bar', name, x: x.map((_, i) => i), y: steps.map(([, seconds]) => (seconds[name] ?? 0) / factor),
      marker: { color: page.phase_colours[name] },
      customdata: steps.map(([, seconds], i) => `<b>${x[i]}</b><br>${name} ${grouped((seconds[name] ?? 0) / factor, 1)} ${unit}`),
      hovertemplate: '%{customdata}<extra></extra>',
    })),
    layout: baseLayout({
      barmode: 'stack', bargap: 0.35,
      xaxis: axis({ showgrid: false, ...(x.length <= 16 && { tickvals: x.map((_, i) => i), ticktext: x }) }),
      yaxis: axis({ ticksuffix: ` ${unit}`, nticks: 6 }),
    }),
    key: names.map((name) => [`background:${page.phase_colours[name]}`, name]),
  };
};
