// The allocator's segments: memory by address in lines, a gap where a segment ends.
const map = { boxes: [], at: -1 };
const LINE = 15;
const GAP = 4;

const layoutSegments = (run, width) => {
  const total = run.segments.reduce((sum, [, , , , pieces]) => sum + pieces.reduce((part, [bytes]) => part + bytes, 0), 0);
  const lines = Math.min(isPhone() ? 56 : 36, Math.max(5, Math.ceil(total / 2 ** 28)));
  const perLine = total / lines || 1;
  const boxes = [];
  let position = 0;
  run.segments.forEach(([stream, pool, isSmall, isExpandable, pieces], number) => {
    const held = pieces.reduce((sum, [bytes]) => sum + bytes, 0);
    pieces.forEach(([bytes, category, blocks], order) => {
      let rest = bytes;
      const box = { number, stream, pool, isSmall, isExpandable, held, bytes, blocks, category: run.names[category], parts: [] };
      while (rest > 0) {
        const line = Math.min(lines - 1, Math.floor(position / perLine + 1e-9));
        const room = Math.max(1, (line + 1) * perLine - position);
        const taken = Math.min(rest, room);
        const last = order === pieces.length - 1 && taken === rest;
        box.parts.push([((position - line * perLine) / perLine) * width, line * (LINE + GAP), (taken / perLine) * width, last]);
        position += taken;
        rest -= taken;
      }
      boxes.push(box);
    });
  });
  return { boxes, lines, perLine, total };
};

const drawSegments = () => {
  const canvas = byId('segment-map');
  if (!canvas) return;
  const run = current();
  const width = canvas.clientWidth || 600;
  const scale = devicePixelRatio || 1;
  const { boxes, lines, perLine, total } = layoutSegments(run, width);
  const height = lines * (LINE + GAP);
  canvas.style.height = `${height}px`;
  [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
  const pen = canvas.getContext('2d');
  pen.scale(scale, scale);
  const [free, mixed, edge] = [colour('free'), colour('mixed'), colour('card')];
  const filled = (box) => (box.category === '' ? free : box.category === 'small blocks' ? mixed : page.colours[box.category] ?? mixed);
  for (const box of boxes) for (const [x, y, w] of box.parts) {
    pen.fillStyle = filled(box);
    pen.fillRect(x, y, Math.max(w, 0.25), LINE);
  }
  pen.fillStyle = edge;
  for (const box of boxes) for (const [x, y, w, last] of box.parts) {
    if (last) pen.fillRect(x + w - (w > 4 ? 1.5 : 0.5), y, w > 4 ? 1.5 : 0.5, LINE);
    else if (w > 5) pen.fillRect(x + w - 0.5, y, 0.5, LINE);
  }
  if (map.at >= 0 && boxes[map.at]) {
    pen.strokeStyle = colour('ink');
    pen.lineWidth = 2;
    for (const [x, y, w] of boxes[map.at].parts) pen.strokeRect(x + 1, y + 1, Math.max(2, w - 2), LINE - 2);
  }
  map.boxes = boxes;
  segmentWords(run, boxes, perLine, total);
};

const segmentWords = (run, boxes, perLine, total) => {
  const freeBoxes = boxes.filter((box) => box.category === '');
  const free = freeBoxes.reduce((sum, box) => sum + box.bytes, 0);
  const facts = [
    [size(total), 'reserved'], [grouped(run.segments.length), 'segments'], [size(total - free), 'lent out'],
    [size(free), `free inside (${total ? ((100 * free) / total).toFixed(1) : 0} %)`],
    [size(Math.max(0, ...freeBoxes.map((box) => box.bytes))), 'largest free piece'], [size(perLine), 'a line'],
  ];
  byId('segment-facts').replaceChildren(...facts.map(([value, name]) => element('span', {}, element('b', {}, value), ` ${name}`)));
  const names = page.stack.filter((name) => boxes.some((box) => box.category === name));
  const key = names.map((name) => element('span', {}, element('i', { 'data-category': name }), words(name)));
  if (boxes.some((box) => box.category === 'small blocks')) key.push(element('span', {}, element('i', { style: 'background:var(--mixed)' }), 'small blocks'));
  key.push(element('span', {}, element('i', { style: 'background:var(--free)' }), 'free'));
  byId('segment-key').replaceChildren(...key);
};

const boxWords = (box) => {
  const kind = box.category === '' ? 'free' : words(box.category);
  const blocks = box.blocks > 1 ? `, ${grouped(box.blocks)} blocks` : '';
  const segment = `${box.isExpandable ? 'expandable stretch' : box.isSmall ? 'small segment' : 'segment'} ${grouped(box.number + 1)} of ${size(box.held)}`;
  return `${kind}: ${size(box.bytes)}${blocks}\n${segment}, stream ${box.stream}${box.pool ? `, private pool ${box.pool}` : ''}`;
};

const showTip = (text, x, y) => {
  const tip = byId('tip');
  tip.textContent = text;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${y + height + 24 > innerHeight ? y - height - 12 : y + 16}px`;
};

const startSegments = () => {
  const canvas = byId('segment-map');
  if (!canvas) return;
  figures.push(drawSegments);
  drawSegments();
  const leave = () => { byId('tip').hidden = true; if (map.at >= 0) { map.at = -1; drawSegments(); } };
  const choose = (number, x, y) => {
    if (number !== map.at) { map.at = number; drawSegments(); }
    showTip(boxWords(map.boxes[number]), x, y);
  };
  canvas.addEventListener('mousemove', (move) => {
    const found = map.boxes.findIndex((box) => box.parts.some(([x, y, w]) =>
      move.offsetX >= x && move.offsetX <= x + w && move.offsetY >= y && move.offsetY <= y + LINE));
    if (found < 0) leave();
    else choose(found, move.clientX, move.clientY);
  });
  canvas.addEventListener('mouseleave', leave);
  canvas.addEventListener('blur', leave);
  canvas.addEventListener('keydown', (press) => {
    const change = { ArrowRight: 1, ArrowLeft: -1, PageDown: 20, PageUp: -20 }[press.key];
    if (!change || !map.boxes.length) return;
    press.preventDefault();
    const next = Math.min(map.boxes.length - 1, Math.max(0, map.at + change));
    const [x, y] = map.boxes[next].parts[0];
    const box = canvas.getBoundingClientRect();
    choose(next, box.left + x, box.top + y);
  });
  let waiting = 0;
  addEventListener('resize', () => { clearTimeout(waiting); waiting = setTimeout(drawSegments, 120); });
};
