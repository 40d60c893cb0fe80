// Every tensor alive at the peak: sortable and filterable.
const PAGE_ROWS = 25;
const BLOCK_BYTES = 512; // in which live tensors are counted
const listing = { column: 0, down: true, shown: PAGE_ROWS, rows: [] };
const COLUMNS = [
  ['size', (row) => row.bytes, true], ['category', (row) => row.category, false], ['module', (row) => row.module, false],
  ['made by', (row) => row.operator, false], ['born', (row) => row.birth, true], ['dies', (row) => row.death, true],
];

const tensorRows = (run) => {
  const [bytes, category, module, operator, birth, death] = run.tensors;
  const when = (event) => {
    const phase = spanAt(run, run.phases, event);
    return `${phase && phase !== 'between' ? phase : 'event'} ${grouped(event)}`;
  };
  return Array.from(bytes, (value, i) => ({
    bytes: value, kind: run.names[category[i]], category: words(run.names[category[i]]), module: run.names[module[i]],
    operator: run.names[operator[i]], birth: birth[i], death: death[i] < 0 ? Infinity : death[i],
    bornText: birth[i] < 0 ? 'before' : when(birth[i]), diesText: death[i] < 0 ? 'outlives the run' : when(death[i]),
  }));
};

const listed = () => {
  const wanted = byId('filter').value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const kind = byId('kind').value;
  const [, key, isNumber] = COLUMNS[listing.column];
  const sign = listing.down ? -1 : 1;
  return listing.rows
    .filter((row) => (!kind || row.kind === kind) && wanted.every((word) => `${row.module} ${row.operator} ${row.category}`.toLowerCase().includes(word)))
    .sort((a, b) => sign * (isNumber ? key(a) - key(b) || 0 : key(a).localeCompare(key(b), 'en', { numeric: true })) || b.bytes - a.bytes);
};

const drawTensors = () => {
  const rows = listed();
  const total = rows.reduce((sum, row) => sum + Math.ceil(row.bytes / BLOCK_BYTES) * BLOCK_BYTES, 0);
  byId('tensor-table').tBodies[0].replaceChildren(...rows.slice(0, listing.shown).map((row) => element('tr', {},
    element('td', { class: 'n' }, size(row.bytes)),
    element('td', {}, element('i', { class: 'swatch', 'data-category': row.kind }), row.category),
    element('td', { class: 'wide' }, row.module || '–'), element('td', { class: 'wide' }, row.operator || '–'),
    element('td', {}, row.bornText), element('td', {}, row.diesText))));
  byId('count').textContent = `${grouped(rows.length)} of ${grouped(listing.rows.length)} tensors, ${size(total)}`;
  byId('more').hidden = rows.length <= listing.shown;
  byId('more').textContent = `Show ${grouped(Math.min(PAGE_ROWS, rows.length - listing.shown))} more`;
  [...byId('tensor-table').tHead.rows[0].cells].forEach((cell, i) => {
    if (i === listing.column) cell.setAttribute('aria-sort', listing.down ? 'descending' : 'ascending');
    else cell.removeAttribute('aria-sort');
    cell.querySelector('span').textContent = i === listing.column ? (listing.down ? '↓' : '↑') : '';
  });
};

const startTensors = () => {
  if (!byId('tensor-table')) return;
  const run = current();
  listing.rows = tensorRows(run);
  listing.shown = PAGE_ROWS;
  const again = () => { listing.shown = PAGE_ROWS; drawTensors(); };
  byId('tensor-table').tHead.rows[0].replaceChildren(...COLUMNS.map(([title, , isNumber], i) => {
    const button = element('button', { type: 'button' }, title, element('span', { 'aria-hidden': 'true' }));
    button.addEventListener('click', () => {
      listing.down = listing.column === i ? !listing.down : isNumber;
      listing.column = i;
      again();
    });
    return element('th', { scope: 'col', ...(i === 0 && { class: 'n' }) }, button);
  }));
  const kinds = page.stack.filter((name) => listing.rows.some((row) => row.kind === name));
  byId('kind').replaceChildren(element('option', { value: '' }, 'all'), ...kinds.map((name) => element('option', { value: name }, words(name))));
  byId('filter').oninput = again;
  byId('kind').onchange = again;
  byId('more').onclick = () => { listing.shown += PAGE_ROWS; drawTensors(); };
  drawTensors();
};
