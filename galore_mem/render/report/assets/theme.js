// Figures in the page's colours, drawn again when those change.
const figures = [];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const isPhone = () => innerWidth < 720;

const baseLayout = (more = {}) => ({
  paper_bgcolor: 'rgba(0,0,0,0)',
  plot_bgcolor: 'rgba(0,0,0,0)',
  font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: colour('ink') },
  margin: { l: 58, r: 14, t: 12, b: 40 },
  showlegend: false,
  hoverlabel: {
    bgcolor: colour('card'), bordercolor: colour('line'), align: 'left',
    font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: colour('ink') },
  },
  ...more,
});
const axis = (more = {}) => ({
  gridcolor: colour('line'), zerolinecolor: colour('line'), linecolor: colour('line'), tickcolor: colour('line'),
  tickfont: { color: colour('dim'), size: 12 }, ticks: 'outside', ticklen: 4, automargin: true, fixedrange: true, tickformat: ',', ...more,
});
const config = { displayModeBar: false, responsive: true, displaylogo: false, doubleClick: false };

// What colours mean, below a figure where its words may wrap.
const keyBelow = (target, entries) => {
  if (!target.nextElementSibling?.classList.contains('key')) target.after(element('div', { class: 'key' }));
  target.nextElementSibling.replaceChildren(...entries.map(([style, name]) => element('span', {}, element('i', { style }), name)));
};

const draw = (id, make) => {
  const target = byId(id);
  if (!target) return;
  const once = () => {
    const made = make(target);
    if (made) Plotly.react(target, made.data, made.layout, config);
    if (made?.key) keyBelow(target, made.key);
  };
  figures.push(once);
  once();
};
const redraw = () => figures.forEach((once) => once());

addEventListener('recolour', redraw);
