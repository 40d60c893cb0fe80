// What is alive at the peak: a treemap by module or category, and bars by layer.
const tree = { by: 'modules' };
const neutral = () => colour('soft');

const savedNodes = (run, nodes) => {
  const [labels, parents, values, colours] = [[], [], [], []];
  nodes.forEach(([label, parent, bytes, category], i) => {
    const name = run.names[category];
    const text = run.names[label];
    labels.push(i === 0 ? 'alive at the peak' : page.colours[text] ? words(text) : text);
    parents.push(parent < 0 ? '' : String(parent));
    values.push(bytes);
    colours.push(name ? page.colours[name] : neutral());
  });
  return { labels, parents, values, colours };
};

const categoryNodes = (run) => {
  const [bytes, category, module, operator] = run.tensors;
  const groups = new Map();
  bytes.forEach((value, i) => {
    const kind = run.names[category[i]];
    const name = run.names[module[i]] || run.names[operator[i]] || 'unknown';
    if (!groups.has(kind)) groups.set(kind, new Map());
    const inner = groups.get(kind);
    inner.set(name, (inner.get(name) ?? 0) + value);
  });
  const nodes = { labels: ['alive at the peak'], parents: [''], values: [0], colours: [neutral()] };
  const add = (label, parent, value, tone) => {
    nodes.labels.push(label); nodes.parents.push(String(parent)); nodes.values.push(value); nodes.colours.push(tone);
    return nodes.labels.length - 1;
  };
  for (const [kind, inner] of groups) {
    const total = [...inner.values()].reduce((sum, value) => sum + value, 0);
    nodes.values[0] += total;
    const at = add(words(kind), 0, total, page.colours[kind]);
    const largest = [...inner].sort((a, b) => b[1] - a[1]);
    largest.slice(0, 120).forEach(([name, value]) => add(name, at, value, page.colours[kind]));
  }
  return nodes;
};

const treeFigure = () => {
  const run = current();
  const nodes = tree.by === 'category' ? categoryNodes(run) : savedNodes(run, run[tree.by]);
  return {
    data: [{
      type: 'treemap', branchvalues: 'total', ids: nodes.labels.map((_, i) => String(i)), labels: nodes.labels.map(plain),
      parents: nodes.parents, values: nodes.values, customdata: nodes.values.map(size), maxdepth: -1, sort: true,
      marker: { colors: nodes.colours, line: { width: 1, color: colour('card') }, pad: { t: 20, l: 3, r: 3, b: 3 } },
      texttemplate: '%{label}<br>%{customdata}', textfont: { size: 12 }, tiling: { pad: 1 },
      pathbar: { thickness: 24, textfont: { size: 12, color: colour('ink') }, edgeshape: '/' },
      hovertemplate: '%{currentPath}<b>%{label}</b><br>%{customdata}, %{percentRoot:.1%} of what is alive<extra></extra>',
    }],
    layout: baseLayout({ margin: { l: 4, r: 4, t: 4, b: 4 }, uniformtext: { minsize: 11, mode: 'hide' } }),
  };
};

const startTree = () => {
  if (!byId('tree-plot')) return;
  if (!current()[tree.by]?.length && tree.by !== 'category') tree.by = 'modules';
  draw('tree-plot', treeFigure);
  const buttons = [...document.querySelectorAll('#tree-by button')];
  byId('tree-by').querySelector('[data-by=layer_tree]').hidden = !current().layer_tree.length;
  for (const button of buttons)
    button.onclick = () => {
      tree.by = button.dataset.by;
      buttons.forEach((each) => each.setAttribute('aria-pressed', String(each === button)));
      Plotly.newPlot('tree-plot', treeFigure().data, treeFigure().layout, config);
    };
};

const layersFigure = () => {
  const run = current();
  const rows = Object.entries(run.layers).sort(([a], [b]) => (Number.isNaN(Number(a)) ? 1e9 : Number(a)) - (Number.isNaN(Number(b)) ? 1e9 : Number(b)));
  const totals = rows.map(([, row]) => Object.values(row).reduce((sum, value) => sum + value, 0));
  const [unit, factor] = unitFor(Math.max(1, ...totals));
  const names = page.stack.filter((name) => rows.some(([, row]) => row[name]));
  const x = rows.map(([name]) => (name === 'outside the layers' ? 'outside' : name));
  return {
    data: names.map((name) => ({
      type: 'bar', name: words(name), x, y: rows.map(([, row]) => (row[name] ?? 0) / factor),
      marker: { color: page.colours[name], line: { width: 0 } },
      customdata: rows.map(([layer, row], i) => `<b>${layer === 'outside the layers' ? layer : `layer ${layer}`}</b>, ${size(totals[i])} in all<br>${words(name)} ${size(row[name] ?? 0)}`),
      hovertemplate: '%{customdata}<extra></extra>',
    })),
    layout: baseLayout({
      barmode: 'stack', bargap: 0.22,
      xaxis: axis({ type: 'category', showgrid: false, title: { text: 'layer', font: { size: 12, color: colour('dim') }, standoff: 6 }, nticks: 24 }),
      yaxis: axis({ ticksuffix: ` ${unit}`, nticks: 6 }),
    }),
    key: names.map((name) => [`background:${page.colours[name]}`, words(name)]),
  };
};
