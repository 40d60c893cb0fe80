// Everything together.
const showRun = (number) => {
  state.run = number;
  for (const part of document.querySelectorAll('[data-of]')) part.hidden = Number(part.dataset.of) !== number;
  figures.length = 0;
  view.hidden.clear();
  startTimeline();
  startTree();
  startTensors();
  if (byId('layers-plot')) draw('layers-plot', layersFigure);
  if (byId('steps-plot')) draw('steps-plot', stepsFigure);
  if (byId('overlay-plot')) draw('overlay-plot', overlayFigure);
  if (!map.wired) { map.wired = true; startSegments(); } else { figures.push(drawSegments); drawSegments(); }
};

const switchRuns = () => {
  if (runs.length < 2) return;
  const box = element('span', { class: 'switch', role: 'group', 'aria-label': 'Run shown' });
  runs.forEach((run, number) => {
    const button = element('button', { type: 'button', 'aria-pressed': String(number === 0), title: run.name }, `Run ${'AB'[number]}`);
    button.addEventListener('click', () => {
      [...box.children].forEach((each, i) => each.setAttribute('aria-pressed', String(i === number)));
      showRun(number);
    });
    box.append(button);
  });
  document.querySelector('nav').append(box);
};

const inflated = async (packed) => {
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))).blob();
};

const download = async (number) => {
  const packed = byId(`raw-${number}`).textContent;
  const blob = packed ? await inflated(packed) : new Blob([JSON.stringify(page.runs[number])], { type: 'application/json' });
  const link = element('a', { href: URL.createObjectURL(blob), download: `${runs[number].name.replace(/[^\w.-]+/g, '_').replace(/\.gz$/, '').replace(/(\.json|\.pickle|\.pkl)$/, '')}.json` });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
};

for (const button of document.querySelectorAll('.download')) button.addEventListener('click', () => download(Number(button.dataset.run)));
for (const button of document.querySelectorAll('.copy')) button.addEventListener('click', async () => {
  const code = button.previousElementSibling;
  try { await navigator.clipboard.writeText(code.textContent); button.textContent = 'Copied'; } catch { getSelection().selectAllChildren(code); }
});

const links = new Map([...document.querySelectorAll('nav a')].map((link) => [link.hash.slice(1), link]));
const watch = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) {
    links.forEach((link) => link.removeAttribute('aria-current'));
    links.get(entry.target.id)?.setAttribute('aria-current', 'true');
  }
}, { rootMargin: '-15% 0px -75% 0px' });
links.forEach((_, id) => byId(id) && watch.observe(byId(id)));

switchRuns();
showRun(0);
document.documentElement.dataset.ready = 'yes';
