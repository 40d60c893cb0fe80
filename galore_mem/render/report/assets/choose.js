// Light and dark: as the system, until someone chooses.
const THEMES = [['', 'Auto', 'as the system'], ['light', 'Light', 'light'], ['dark', 'Dark', 'dark']];
const setTheme = ([name, label, spoken]) => {
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
  const button = document.getElementById('theme');
  button.textContent = label;
  button.setAttribute('aria-label', `Colours: ${spoken}`);
  dispatchEvent(new Event('recolour'));
};
document.getElementById('theme').addEventListener('click', () => {
  const now = THEMES.findIndex(([key]) => key === (document.documentElement.dataset.theme ?? ''));
  setTheme(THEMES[(now + 1) % THEMES.length]);
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => dispatchEvent(new Event('recolour')));
document.getElementById('print').addEventListener('click', () => print());
